// safetensors: 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, the data.
// https://huggingface.co/docs/safetensors, "Format"
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "formats/content.h"

namespace cepe::formats {

// The published reader's limit, and so the writer's.
inline constexpr uint64_t max_safetensors_header = 100'000'000;

// `where` names the file in messages. As the published reader does, refuses data that overlaps, has holes or leaves
// bytes over. Errors: corrupt, or unsupported for element types that DType lacks; each names the tensor.
ParsedFile parse_safetensors(std::span<const std::byte> file, const std::string& where);

// For writing a file piece by piece: what it begins with, and then whose data follow, as indices into `tensors`.
struct SafetensorsPlan {
  std::string head;
  std::vector<size_t> order;
};

// Reads names, types and shapes only: the views need no bytes. Errors: as write_safetensors.
SafetensorsPlan plan_safetensors(std::span<const NamedTensor> tensors, const base::Json& metadata);

}  // namespace cepe::formats
