// Checkpoint -> tensors and Linears: types, fused parts, packed blocks, row orders, what is missing and what is left
// over.
#pragma once

#include <ATen/core/Tensor.h>

#include <set>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "model/linear.h"
#include "model/norm.h"

namespace cepe::model {

// How weights are kept after loading.
enum class WeightType {
  automatic,  // CPU: 4- and 8-bit blocks stay packed, float32 stays, the rest becomes bfloat16. CUDA: bfloat16
  float32,    // everything dequantised
  bfloat16,   // dense bfloat16, blocks dequantised
  // The products of decoder and cross-attention (quantise.h) in 8 or 4 bits; all else, and what is packed already on a
  // CPU, as with `automatic`.
  fp8,
  int8,
  int4,
};

// Whether a CPU keeps float32 and packed tensors as the file has them.
constexpr bool keeps_stored(WeightType type) { return type != WeightType::float32 && type != WeightType::bfloat16; }

struct LoadOptions {
  WeightType type = WeightType::automatic;
  at::Device device = at::kCPU;
  bool allow_mismatch = false;  // an adapter made for another decoder is taken all the same
  // With fp8, token ids [windows, T] int64 of a text: rounding is calibrated on them (calibrate.h). Undefined: to the
  // nearest.
  at::Tensor calibration = {};
};

// Whether loading rounds by calibration.
inline bool is_calibrated(const LoadOptions& options) {
  return options.type == WeightType::fp8 && options.calibration.defined();
}

// Any view as a tensor of its own type (blocks as float32), copied.
at::Tensor to_tensor(const formats::TensorView& view);

// Rows of a GGUF llama query or key matrix back into Hugging Face's order, as bytes. [heads * D, in].
std::vector<std::byte> unpermute_rows(const formats::TensorView& view, int64_t heads);

struct MatrixOptions {
  bool bias = false;        // name.bias is read too
  bool transposed = false;  // stands as [in, out]
  // Heads of each part whose rows stand in GGUF's order, 0 = in order. Empty = all in order.
  std::vector<int64_t> permuted_heads;
};

class WeightReader {
 public:
  WeightReader(const formats::Checkpoint& checkpoint, const LoadOptions& options);

  bool contains(const std::string& name) const { return checkpoint_.contains(name); }

  // A dense tensor of the activations' type with exactly this shape. Missing names are collected (see finish).
  at::Tensor tensor(const std::string& name, const std::vector<int64_t>& shape);
  Norm norm(const std::string& name, int64_t width, double eps, NormKind kind = NormKind::rms);

  // Matrices `names` (without ".weight") under one another: [sum of out, in]. `out` gives the rows of each.
  Linear linear(const std::vector<std::string>& names, const std::vector<int64_t>& out, int64_t in,
                const MatrixOptions& options = {});

  WeightType type() const { return options_.type; }
  const LoadOptions& options() const { return options_; }
  at::ScalarType weight_type() const;      // of dense weights that are not float32 in the file or must not be
  at::ScalarType activation_type() const;  // CPU: float32; CUDA: the weights'

  // Throws not_found with the list of missing names; warns of tensors never asked for (harmless ones are passed over).
  // `prefixes`: only names that start with one of them count as left over; empty = all.
  void finish(const std::vector<std::string>& prefixes = {});

 private:
  bool take(const std::string& name);
  Linear packed(const std::vector<std::string>& names, const std::vector<int64_t>& out, int64_t in,
                const MatrixOptions& options);
  at::Tensor dense_part(const std::string& name, int64_t out, int64_t in, bool transposed, int64_t permuted_heads);
  void check_shape(const std::string& name, const std::vector<int64_t>& found,
                   const std::vector<int64_t>& expected) const;

  const formats::Checkpoint& checkpoint_;
  LoadOptions options_;
  std::set<std::string> used_;
  std::vector<std::string> missing_;
};

}  // namespace cepe::model
