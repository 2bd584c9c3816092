#include "model/quantise.h"

#include <memory>

#include "ops/quantise.h"

namespace cepe::model {
namespace {

bool takes(ops::PackedFormat format, int64_t in_features) {
  constexpr int64_t block_inputs = 32;
  return format != ops::PackedFormat::q4_1 || in_features % block_inputs == 0;
}

bool has_any(const std::string& name, std::initializer_list<const char*> pieces) {
  for (const char* piece : pieces)
    if (name.find(piece) != std::string::npos) return true;
  return false;
}

}  // namespace

std::optional<ops::PackedFormat> quantised_format(WeightType type) {
  switch (type) {
    case WeightType::fp8:
      return ops::PackedFormat::fp8_row;
    case WeightType::int8:
      return ops::PackedFormat::int8_row;
    case WeightType::int4:
      return ops::PackedFormat::q4_1;
    default:
      return std::nullopt;
  }
}

std::optional<ops::PackedFormat> format_at_once(const LoadOptions& options) {
  return is_calibrated(options) ? std::nullopt : quantised_format(options.type);
}

void quantise(Linear& linear, ops::PackedFormat format) {
  if (!linear.weight.defined() || !takes(format, linear.weight.size(1))) return;
  linear.packed = std::make_shared<ops::PackedWeight>(ops::quantise(linear.weight, format));
  linear.weight.reset();
}

void quantise(DecoderLayer& layer, ops::PackedFormat format) {
  for (Linear* linear : {&layer.attention.query_key_value, &layer.attention.output, &layer.feed_forward.gate_up,
                         &layer.feed_forward.down})
    quantise(*linear, format);
}

void quantise(CrossAttention& block, ops::PackedFormat format) {
  quantise(block.query, format);
  quantise(block.output, format);
}

bool is_quantised_weight(const std::string& name, const std::vector<int64_t>& shape) {
  if (shape.size() != 2 || name.starts_with("encoder.")) return false;
  if (has_any(name, {"cross_attn."})) return has_any(name, {"q_proj", "o_proj"});
  return !has_any(name, {"embed_tokens", "embed_in", "wte.", "wpe.", "token_embd", "position_embd"});
}

int64_t loaded_bytes(const std::string& name, const formats::TensorView& view, WeightType type, bool on_cpu) {
  const bool keeps = on_cpu && keeps_stored(type);
  const bool stays_packed = formats::is_quantised(view.type) || view.type == formats::DType::int8;
  if (keeps && stays_packed) return static_cast<int64_t>(view.bytes.size());
  if (const auto format = quantised_format(type); format && is_quantised_weight(name, view.shape)) {
    // GPT-2's stand as [in, out]: the other way round, which makes a difference of some scales.
    if (takes(*format, view.shape[1])) return ops::quantised_bytes(*format, view.shape[0], view.shape[1], on_cpu);
  }
  if (keeps && view.type == formats::DType::float32) return static_cast<int64_t>(view.bytes.size());
  return formats::element_count(view) * (type == WeightType::float32 ? 4 : 2);
}

}  // namespace cepe::model
