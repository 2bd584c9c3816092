#include "formats/dtype.h"

#include <array>

namespace cepe::formats {
namespace {

struct TypeFacts {
  std::string_view name;
  int64_t values;
  int64_t bytes;
  std::string_view safetensors;  // empty: safetensors has no such type
};

// In the order of DType. Bytes of the block types: ggml-common.h, the static_asserts beside each block.
constexpr std::array<TypeFacts, 20> facts{{
    {"float64", 1, 8, "F64"}, {"float32", 1, 4, "F32"},  {"float16", 1, 2, "F16"}, {"bfloat16", 1, 2, "BF16"},
    {"int64", 1, 8, "I64"},   {"int32", 1, 4, "I32"},    {"int16", 1, 2, "I16"},   {"int8", 1, 1, "I8"},
    {"uint8", 1, 1, "U8"},    {"boolean", 1, 1, "BOOL"}, {"q4_0", 32, 18, ""},     {"q4_1", 32, 20, ""},
    {"q5_0", 32, 22, ""},     {"q5_1", 32, 24, ""},      {"q8_0", 32, 34, ""},     {"q2_k", 256, 84, ""},
    {"q3_k", 256, 110, ""},   {"q4_k", 256, 144, ""},    {"q5_k", 256, 176, ""},   {"q6_k", 256, 210, ""},
}};

const TypeFacts& facts_of(DType type) { return facts.at(static_cast<size_t>(type)); }

struct GgmlType {
  std::string_view name;  // empty: a number that was never or is no longer used
  std::optional<DType> type;
};

constexpr std::array<GgmlType, 31> ggml_types{{
    {"F32", DType::float32},
    {"F16", DType::float16},
    {"Q4_0", DType::q4_0},
    {"Q4_1", DType::q4_1},
    {"Q4_2", {}},
    {"Q4_3", {}},
    {"Q5_0", DType::q5_0},
    {"Q5_1", DType::q5_1},
    {"Q8_0", DType::q8_0},
    {"Q8_1", {}},
    {"Q2_K", DType::q2_k},
    {"Q3_K", DType::q3_k},
    {"Q4_K", DType::q4_k},
    {"Q5_K", DType::q5_k},
    {"Q6_K", DType::q6_k},
    {"Q8_K", {}},
    {"IQ2_XXS", {}},
    {"IQ2_XS", {}},
    {"IQ3_XXS", {}},
    {"IQ1_S", {}},
    {"IQ4_NL", {}},
    {"IQ3_S", {}},
    {"IQ2_S", {}},
    {"IQ4_XS", {}},
    {"I8", DType::int8},
    {"I16", DType::int16},
    {"I32", DType::int32},
    {"I64", DType::int64},
    {"F64", DType::float64},
    {"IQ1_M", {}},
    {"BF16", DType::bfloat16},
}};

}  // namespace

std::string_view name_of(DType type) { return facts_of(type).name; }
int64_t block_values(DType type) { return facts_of(type).values; }
int64_t block_bytes(DType type) { return facts_of(type).bytes; }
bool is_quantised(DType type) { return block_values(type) > 1; }

std::optional<DType> dtype_of_safetensors(std::string_view name) {
  for (size_t i = 0; i < facts.size(); ++i) {
    if (!name.empty() && facts[i].safetensors == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::optional<std::string_view> safetensors_name(DType type) {
  if (is_quantised(type)) return std::nullopt;
  return facts_of(type).safetensors;
}

std::optional<DType> dtype_of_ggml(uint32_t number) {
  return number < ggml_types.size() ? ggml_types[number].type : std::nullopt;
}

std::string ggml_name(uint32_t number) {
  if (number < ggml_types.size()) return std::string(ggml_types[number].name);
  return "number " + std::to_string(number);
}

std::optional<int64_t> checked_count(std::span<const int64_t> shape) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return std::nullopt;
  }
  return count;
}

std::optional<int64_t> checked_bytes(DType type, std::span<const int64_t> shape) {
  const auto count = checked_count(shape);
  if (!count) return std::nullopt;
  const int64_t values = block_values(type);
  if (values > 1 && (shape.empty() || shape.back() % values != 0)) return std::nullopt;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(*count / values, block_bytes(type), &bytes)) return std::nullopt;
  return bytes;
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i == 16) return text + ", ...]";
    text += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

int64_t element_count(const TensorView& view) {
  int64_t count = 1;
  for (const int64_t size : view.shape) count *= size;
  return count;
}

}  // namespace cepe::formats
