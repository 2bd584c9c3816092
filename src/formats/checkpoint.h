// Checkpoint: named tensors over memory-mapped files, whatever the format (safetensors, GGUF, PyTorch .bin).
// Knows bytes, types and shapes; no model and no tensor library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/json.h"

namespace cepe::formats {

enum class DType {
  float64,
  float32,
  float16,
  bfloat16,
  int64,
  int32,
  int16,
  int8,
  uint8,
  boolean,
  // GGUF's blocks (ggml's names); 32 or 256 values a block along the last dimension.
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
};

std::string_view name_of(DType type);  // "float32", "q4_1", ...
int64_t block_values(DType type);      // values a block: 1, 32 or 256
int64_t block_bytes(DType type);       // bytes a block (bytes a value where block_values is 1)
bool is_quantised(DType type);         // block_values > 1

// A tensor inside a mapped file: row-major, contiguous, shape in the order of PyTorch (GGUF's is reversed on reading).
// bytes.size() == product(shape) / block_values * block_bytes; valid as long as its Checkpoint. May be unaligned.
struct TensorView {
  DType type = DType::float32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

int64_t element_count(const TensorView& view);

// Any view as float32 values (blocks dequantised as ggml does). `out` has element_count values.
// Errors: unsupported for integer and boolean types.
void to_float(const TensorView& view, std::span<float> out);

class Checkpoint {
 public:
  // A .safetensors, .gguf, .bin/.pt/.pth file; a *.index.json; or a folder with model.safetensors(.index.json),
  // adapter.safetensors or pytorch_model.bin(.index.json). Errors: not_found, corrupt, unsupported; each names the
  // file.
  static Checkpoint open(const base::Path& path);

  const base::Path& path() const;
  const std::vector<std::string>& names() const;  // sorted
  bool contains(std::string_view name) const;
  TensorView at(std::string_view name) const;  // Errors: not_found, naming the path and the nearest names
  // GGUF's metadata (keys as in the file: "general.architecture"), safetensors' __metadata__; null where there is none.
  const base::Json& metadata() const;
  bool is_gguf() const;

  struct Content;  // made by the format's reader
  explicit Checkpoint(std::shared_ptr<const Content> content);

 private:
  std::shared_ptr<const Content> content_;
};

// Writes `<folder>/<stem>.safetensors`, or shards `<stem>-00001-of-0000N.safetensors` with an index; names in the
// given order. Errors: invalid_argument (block types, say), io, base::Interrupted; then nothing has changed.
struct NamedTensor {
  std::string name;
  TensorView view;
};
void write_safetensors(const base::Path& folder, const std::string& stem, std::span<const NamedTensor> tensors,
                       const base::Json& metadata, int64_t max_shard_bytes);

}  // namespace cepe::formats
