#include "cli/memory_plan.h"

#include <vector>

#include "model/cost_model.h"
#include "model/quantise.h"
#include "ops/int8_context.h"

namespace cepe::cli {
namespace {

using formats::DType;

bool has(std::string_view name, std::string_view piece) { return name.find(piece) != std::string_view::npos; }

bool has_any(std::string_view name, std::initializer_list<std::string_view> pieces) {
  for (const std::string_view piece : pieces) {
    if (has(name, piece)) return true;
  }
  return false;
}

bool is_float(DType type) {
  return type == DType::float64 || type == DType::float32 || type == DType::float16 || type == DType::bfloat16;
}

}  // namespace

std::string_view name_of(Part part) {
  switch (part) {
    case Part::embedding:
      return "embedding";
    case Part::attention:
      return "attention";
    case Part::feed_forward:
      return "feed_forward";
    case Part::norms:
      return "norms";
    case Part::output:
      return "output";
    case Part::encoder:
      return "encoder";
    case Part::cross_attention:
      return "cross_attention";
    case Part::other:
      return "other";
  }
  return "other";
}

Part part_of(std::string_view name) {
  if (name.starts_with("encoder.")) return Part::encoder;
  if (has(name, "cross_attn.")) return Part::cross_attention;
  if (has_any(name, {"embed_tokens", "embed_in", "wte.", "wpe.", "token_embd", "position_embd"}))
    return Part::embedding;
  if (has_any(name, {"lm_head", "embed_out"}) || name.starts_with("output.")) return Part::output;
  if (has_any(name, {"norm", "ln_1", "ln_2", "ln_f"})) return Part::norms;
  if (has_any(name, {"mlp.", "ffn_"})) return Part::feed_forward;
  if (has_any(name, {"attn", "attention."})) return Part::attention;
  return Part::other;
}

void add(ModelSize& size, const formats::Checkpoint& checkpoint, model::WeightType type, bool on_cpu,
         bool but_adapter) {
  for (const std::string& name : checkpoint.names()) {
    if (but_adapter && (part_of(name) == Part::encoder || part_of(name) == Part::cross_attention)) continue;
    const formats::TensorView view = checkpoint.at(name);
    const bool is_scale = name.ends_with("_scale");
    const bool is_weight = is_float(view.type) || formats::is_quantised(view.type) || view.type == DType::int8;
    const auto stored = static_cast<int64_t>(view.bytes.size());
    size.types[std::string(formats::name_of(view.type))] += stored;
    for (PartSize* part : {&size.parts[part_of(name)], &size.total}) {
      if (is_weight && !is_scale) part->parameters += formats::element_count(view);
      part->stored_bytes += stored;
      if (is_weight) part->kept_bytes += model::loaded_bytes(name, view, type, on_cpu);
    }
  }
}

ContextMemory context_memory(const model::DecoderConfig& decoder, int64_t encoder_width, int64_t cross_attention_layers,
                             int64_t tokens, int64_t bytes_per_value, bool kept_in_8_bits) {
  ContextMemory memory;
  memory.tokens = tokens;
  const model::CrossAttentionCost cost = {1, tokens, decoder.heads, decoder.groups, decoder.head_width, encoder_width};
  memory.full_attention = model::kept_bytes(cost, decoder.layers, bytes_per_value);
  if (encoder_width == 0) return memory;
  memory.states = tokens * encoder_width * bytes_per_value;
  const std::vector<int64_t> rows = {tokens};
  memory.kept = kept_in_8_bits
                    ? cross_attention_layers *
                          ops::int8_context_bytes(rows, decoder.groups, decoder.head_width, decoder.head_width)
                    : model::kept_bytes(cost, cross_attention_layers, bytes_per_value);
  return memory;
}

}  // namespace cepe::cli
