// The element types of each format, and sizes computed without overflow.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "formats/checkpoint.h"

namespace cepe::formats {

// safetensors' names ("F32", "BF16"...); nothing for a type this program has none for, or for a block type.
std::optional<DType> dtype_of_safetensors(std::string_view name);
std::optional<std::string_view> safetensors_name(DType type);

// ggml's type numbers (ggml.h, enum ggml_type); nothing for those that are not read.
std::optional<DType> dtype_of_ggml(uint32_t number);
std::string ggml_name(uint32_t number);  // also of types that are not read: "IQ2_XS", or "number 99"

// Product of the shape; nothing where a size is negative or the product exceeds 2^63 - 1. 1 for an empty shape.
std::optional<int64_t> checked_count(std::span<const int64_t> shape);
// Bytes of a contiguous tensor; nothing where checked_count has none, the last size is no multiple of block_values,
// or the bytes exceed 2^63 - 1.
std::optional<int64_t> checked_bytes(DType type, std::span<const int64_t> shape);

std::string shape_text(std::span<const int64_t> shape);  // "[2, 3]"

}  // namespace cepe::formats
