#include "model/encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>

#include <cmath>

#include "model/rope.h"
#include "ops/fused_product.h"

namespace cepe::model {
namespace {

// Queries and keys of rows x, turned, and values.
ops::RotatedHeads split_heads(const EncoderConfig& config, const Linear& fused, const at::Tensor& x,
                              const RopeAngles& angles) {
  const int64_t turned = config.heads + config.groups, width = config.head_width;
  if (is_plain_product(fused, x)) return ops::rotated_product(x, fused.weight, angles.cos, angles.sin, turned, width);
  return ops::rotate_heads(forward(fused, x), angles.cos, angles.sin, turned, width);
}

// Self-attention of n chunks, each to itself: x [n * S, E] -> [n * S, E].
at::Tensor attend_in_chunks(const EncoderConfig& config, const EncoderLayer& layer, const at::Tensor& x,
                            const RopeAngles& angles, int64_t chunks, const at::Tensor& mask) {
  const int64_t heads = config.heads, groups = config.groups, width = config.head_width;
  const auto [rotated, values] = split_heads(config, layer.query_key_value, x, angles);
  const auto by_chunk = [&](const at::Tensor& rows) { return rows.reshape({chunks, -1, rows.size(1), width}); };
  const at::Tensor queries = rotated.narrow(1, 0, heads), keys = rotated.narrow(1, heads, groups);
  const at::Tensor attended = attend_chunks(by_chunk(queries), by_chunk(keys), by_chunk(values), mask,
                                            1 / std::sqrt(static_cast<double>(width)));
  return forward(layer.output, attended.reshape({x.size(0), heads * width}));
}

}  // namespace

at::Tensor forward(const Encoder& encoder, const at::Tensor& chunks, const at::Tensor& mask) {
  const BatchLayout layout = uniform_layout(chunks);
  const RopeAngles angles = rope_angles(encoder.config.rope, layout);
  ResidualStream stream(look_up(encoder.embedding, layout.tokens, encoder.activation_type));  // [n * S, E]
  for (const EncoderLayer& layer : encoder.layers) {
    stream.add(
        attend_in_chunks(encoder.config, layer, stream.normed(layer.attention_norm), angles, chunks.size(0), mask));
    stream.add(forward(layer.feed_forward, stream.normed(layer.feed_forward_norm), encoder.config.activation, true));
  }
  return stream.normed(encoder.norm).reshape({chunks.size(0), chunks.size(1), -1});
}

void visit(Encoder& encoder, const std::string& prefix,
           const std::function<void(const std::string&, at::Tensor&)>& visitor) {
  const int64_t query_rows = encoder.config.heads * encoder.config.head_width,
                key_rows = encoder.config.groups * encoder.config.head_width;
  const auto rows = [&](const std::string& name, at::Tensor& fused, int64_t first, int64_t count) {
    if (!fused.defined()) return;
    at::Tensor part = fused.narrow(0, first, count);
    visitor(name, part);
  };
  if (!encoder.config.shares_embeddings) visitor(prefix + "embed_tokens.weight", encoder.embedding.weight);
  for (size_t i = 0; i < encoder.layers.size(); ++i) {
    EncoderLayer& layer = encoder.layers[i];
    const std::string name = prefix + "layers." + std::to_string(i) + ".";
    visitor(name + "input_layernorm.weight", layer.attention_norm.weight);
    rows(name + "self_attn.q_proj.weight", layer.query_key_value.weight, 0, query_rows);
    rows(name + "self_attn.k_proj.weight", layer.query_key_value.weight, query_rows, key_rows);
    rows(name + "self_attn.v_proj.weight", layer.query_key_value.weight, query_rows + key_rows, key_rows);
    visitor(name + "self_attn.o_proj.weight", layer.output.weight);
    visitor(name + "post_attention_layernorm.weight", layer.feed_forward_norm.weight);
    rows(name + "mlp.gate_proj.weight", layer.feed_forward.gate_up.weight, 0, encoder.config.feed_forward);
    rows(name + "mlp.up_proj.weight", layer.feed_forward.gate_up.weight, encoder.config.feed_forward,
         encoder.config.feed_forward);
    visitor(name + "mlp.down_proj.weight", layer.feed_forward.down.weight);
  }
  visitor(prefix + "norm.weight", encoder.norm.weight);
}

void visit_parameters(Encoder& encoder, const std::function<void(at::Tensor&)>& visitor) {
  if (!encoder.config.shares_embeddings) visitor(encoder.embedding.weight);
  for (EncoderLayer& layer : encoder.layers) {
    visitor(layer.attention_norm.weight);
    visitor(layer.query_key_value.weight);
    visitor(layer.output.weight);
    visitor(layer.feed_forward_norm.weight);
    visitor(layer.feed_forward.gate_up.weight);
    visitor(layer.feed_forward.down.weight);
  }
  visitor(encoder.norm.weight);
}

}  // namespace cepe::model
