#include "model/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tanh.h>

#include <functional>

#include "base/error.h"
#include "base/interrupt.h"
#include "model/layer_walk.h"
#include "model/paged_cache.h"
#include "model/recompute.h"
#include "model/rope.h"
#include "model/step_tables.h"
#include "ops/rotary.h"
#include "ops/token_attention.h"

namespace cepe::model {
namespace {

struct Heads {
  at::Tensor queries, keys, values;  // [N, H, D], [N, G, D], [N, G, D]
};

Heads split_heads(const DecoderConfig& config, const SelfAttention& attention, const at::Tensor& fused) {
  const int64_t heads = config.heads, groups = config.groups, width = config.head_width;
  if (attention.interleaved) {
    const at::Tensor parts = fused.reshape({-1, heads, 3, width});
    return {parts.select(2, 0), parts.select(2, 1), parts.select(2, 2)};
  }
  const std::vector<at::Tensor> parts = fused.split_with_sizes({heads * width, groups * width, groups * width}, 1);
  Heads split = {parts[0], parts[1], parts[2]};
  if (config.query_key_norm == QueryKeyNorm::whole) {
    split.queries = forward(attention.query_norm, split.queries.contiguous());
    split.keys = forward(attention.key_norm, split.keys.contiguous());
  }
  split = {split.queries.reshape({-1, heads, width}), split.keys.reshape({-1, groups, width}),
           split.values.reshape({-1, groups, width})};
  if (config.query_key_norm == QueryKeyNorm::per_head) {
    split.queries = forward(attention.query_norm, split.queries.contiguous());
    split.keys = forward(attention.key_norm, split.keys.contiguous());
  }
  return split;
}

// What a pass computes once and every layer reads.
struct Pass {
  const Decoder& decoder;
  const BatchLayout& layout;
  KvCache* cache;
  const CrossAttentionInput& cross;
  RopeAngles angles, local_angles;
};

at::Tensor attend_self(const Pass& pass, const DecoderLayer& layer, size_t index, const at::Tensor& x) {
  const DecoderConfig& config = pass.decoder.config;
  Heads heads = split_heads(config, layer.attention, forward(layer.attention.query_key_value, x));
  const int64_t window = config.windows[index];
  LayerCache cache;
  if (pass.cache) cache = {pass.cache->keys[index], pass.cache->values[index], index};
  const RopeAngles& angles = window > 0 && config.local_rope ? pass.local_angles : pass.angles;
  const auto rows_of = [&](const at::Tensor& attended) { return attended.reshape({x.size(0), -1}); };
  if (const StepTables* step = pass.layout.step.get(); step && step->one_row_each && !config.learned_positions) {
    const ops::TokenHeads token = {heads.queries, heads.keys,        heads.values, angles.cos,
                                   angles.sin,    pass.layout.slots, cache.keys,   cache.values};
    return forward(layer.attention.output, rows_of(ops::token_attention(token, step->cache.at(index),
                                                                        step->cache_queries, config.attention_scale)));
  }
  if (!config.learned_positions && cache.keys.defined() && pass.layout.slots.defined()) {
    heads.queries = ops::rotate_into_cache(heads.queries, heads.keys, heads.values, angles.cos, angles.sin,
                                           pass.layout.slots, cache.keys, cache.values);
  } else {
    if (!config.learned_positions) {
      heads.queries = ops::rotate(heads.queries, angles.cos, angles.sin);
      heads.keys = ops::rotate(heads.keys, angles.cos, angles.sin);
    }
    if (cache.keys.defined()) write_rows(pass.layout, heads.keys, heads.values, cache.keys, cache.values);
  }
  const at::Tensor attended =
      self_attention(heads.queries, heads.keys, heads.values, pass.layout, cache, config.attention_scale, window);
  return forward(layer.attention.output, rows_of(attended));
}

at::Tensor optional_norm(const Norm& norm, const at::Tensor& x) { return norm ? forward(norm, x) : x; }

at::Tensor feed(const Pass& pass, const DecoderLayer& layer, const at::Tensor& x) {
  return forward(layer.feed_forward, x, pass.decoder.config.activation, pass.decoder.config.gated);
}

// h += self_attention(norm1(h)); h += cross_attention(norm_x(h), states); h += feed_forward(norm2(h)),
// or, with a parallel residual, h += self_attention(norm1(h)) + feed_forward(norm2(h)); h += cross_attention(norm_x(h),
// states).
void forward_layer(const Pass& pass, size_t index, int64_t cross_layer, ResidualStream& stream) {
  const DecoderConfig& config = pass.decoder.config;
  const DecoderLayer& layer = pass.decoder.layers[index];
  const bool parallel = config.residual == ResidualOrder::parallel;
  const at::Tensor attended = attend_self(pass, layer, index, stream.normed(layer.attention_norm));
  if (parallel) {
    const at::Tensor fed = feed(pass, layer, optional_norm(layer.feed_forward_norm, stream.hidden()));
    stream.add(attended);
    stream.add(fed);
  } else {
    stream.add(optional_norm(layer.attention_output_norm, attended));
  }
  if (pass.cross.active() && pass.cross.blocks[index]) {
    const CrossAttention& block = *pass.cross.blocks[index];
    const HeadShape shape = {config.heads, config.groups, config.head_width};
    stream.add(forward(block, stream.normed(block.norm), pass.layout, pass.cross, shape, cross_layer));
  }
  if (parallel) return;
  const at::Tensor fed = feed(pass, layer, stream.normed(layer.feed_forward_norm));
  stream.add(optional_norm(layer.feed_forward_output_norm, fed));
}

// forward_layer that keeps only its input and the contexts' states for the backward pass.
at::Tensor recomputed_layer(const Pass& pass, size_t index, int64_t cross_layer, const at::Tensor& input) {
  std::vector<at::Tensor> inputs = {input};
  std::vector<size_t> pages;  // of each sequence's context
  const bool crossed = pass.cross.active() && pass.cross.blocks[index];
  if (crossed && pass.cross.shared) {
    inputs.push_back(pass.cross.shared->states);
  } else if (crossed) {
    for (const ContextStates* context : pass.cross.contexts) {
      pages.push_back(context ? context->pages.size() : 0);
      if (context) inputs.insert(inputs.end(), context->pages.begin(), context->pages.end());
    }
  }
  // The backward pass comes when this one is over: of all it refers to, only the decoder is still there.
  const auto body = [&decoder = pass.decoder, cross = pass.cross, layout = pass.layout, angles = pass.angles,
                     local_angles = pass.local_angles, pages, crossed, index,
                     cross_layer](const std::vector<at::Tensor>& given) {
    CrossAttentionInput again = crossed ? cross : CrossAttentionInput{};
    std::vector<ContextStates> contexts(pages.size());
    size_t next = 1;
    if (again.shared) again.shared->states = given.at(next);
    for (size_t i = 0; i < pages.size(); ++i) {
      for (size_t page = 0; page < pages[i]; ++page) contexts[i].append(given.at(next++));
      again.contexts[i] = &contexts[i];
    }
    const Pass same = {decoder, layout, nullptr, again, angles, local_angles};
    ResidualStream stream(given.front());
    forward_layer(same, index, cross_layer, stream);
    return stream.hidden();
  };
  return recomputed(body, inputs);
}

void check(const Decoder& decoder, const BatchLayout& layout, const KvCache* cache) {
  using base::Error;
  using base::ErrorCode;
  for (const SequenceRows& sequence : layout.sequences) {
    const int64_t reach = sequence.cached + sequence.count;
    if (decoder.config.learned_positions && reach > decoder.config.max_positions) {
      throw Error(ErrorCode::invalid_argument, "position " + std::to_string(reach) + " is beyond the model's " +
                                                   std::to_string(decoder.config.max_positions) + " learned positions");
    }
    if (cache && slots_needed(layout, sequence) > cache->slots()) {
      throw Error(ErrorCode::invalid_argument, "the cache has " + std::to_string(cache->slots()) +
                                                   " slots; the batch needs " +
                                                   std::to_string(slots_needed(layout, sequence)));
    }
  }
  if (layout.rows() > 0 && layout.tokens.is_cpu()) {
    const int64_t low = layout.tokens.min().item<int64_t>(), high = layout.tokens.max().item<int64_t>();
    if (low < 0 || high >= decoder.config.vocabulary) {
      throw Error(ErrorCode::invalid_argument, "token id " + std::to_string(low < 0 ? low : high) +
                                                   " is outside the model's vocabulary of " +
                                                   std::to_string(decoder.config.vocabulary));
    }
  }
}

Pass pass_of(const Decoder& decoder, const BatchLayout& layout, KvCache* cache, const CrossAttentionInput& cross) {
  Pass pass = {decoder, layout, cache, cross, {}, {}};
  const StepTables* step = layout.step.get();
  if (!decoder.config.learned_positions)
    pass.angles = rope_angles(decoder.config.rope, layout, step ? step->frequencies : at::Tensor());
  if (decoder.config.local_rope)
    pass.local_angles = rope_angles(*decoder.config.local_rope, layout, step ? step->local_frequencies : at::Tensor());
  return pass;
}

}  // namespace

at::Tensor embed(const Decoder& decoder, const BatchLayout& layout) {
  at::Tensor hidden = look_up(decoder.embedding, layout.tokens, decoder.activation_type);
  // The scale is rounded to the activations' type first, as in the published code.
  if (decoder.config.embedding_scale != 1)
    hidden = hidden * at::scalar_tensor(decoder.config.embedding_scale, hidden.scalar_type()).item<double>();
  if (decoder.config.learned_positions) hidden = hidden + at::embedding(decoder.position_embedding, layout.positions);
  return hidden;
}

at::Device Decoder::device() const { return norm.weight.device(); }

at::Tensor forward(const Decoder& decoder, const BatchLayout& layout, KvCache* cache, const CrossAttentionInput& cross,
                   bool recompute) {
  constexpr int64_t long_text = 256;
  check(decoder, layout, cache);
  const Pass pass = pass_of(decoder, layout, cache, cross);
  ResidualStream stream(embed(decoder, layout));  // [N, C]
  int64_t cross_layer = 0;
  for (size_t index = 0; index < decoder.layers.size(); ++index) {
    if (cache && layout.tokens.size(0) >= long_text) base::throw_if_interrupted();
    if (recompute && !cache)
      stream = ResidualStream(recomputed_layer(pass, index, cross_layer, stream.hidden()));
    else
      forward_layer(pass, index, cross_layer, stream);
    if (!cross.blocks.empty() && cross.blocks[index]) ++cross_layer;
  }
  return stream.normed(decoder.norm);
}

at::Tensor forward_layer(const Decoder& decoder, size_t index, const BatchLayout& layout, const at::Tensor& hidden) {
  const CrossAttentionInput none;
  ResidualStream stream(hidden);
  forward_layer(pass_of(decoder, layout, nullptr, none), index, 0, stream);
  return stream.hidden();
}

at::Tensor capped_logits(const DecoderConfig& config, const at::Tensor& products) {
  const at::Tensor values = products.to(at::kFloat);
  return config.logit_cap > 0 ? at::tanh(values / config.logit_cap) * config.logit_cap : values;
}

at::Tensor logits(const Decoder& decoder, const at::Tensor& hidden) {
  return capped_logits(decoder.config, forward(decoder.lm_head ? decoder.lm_head : decoder.embedding, hidden));
}

namespace {

void visit_linear(Linear& linear, const std::string& name,
                  const std::function<void(const std::string&, at::Tensor&)>& visitor) {
  if (linear.weight.defined()) visitor(name + ".weight", linear.weight);
  if (linear.bias.defined()) visitor(name + ".bias", linear.bias);
}

void visit_norm(Norm& norm, const std::string& name,
                const std::function<void(const std::string&, at::Tensor&)>& visitor) {
  if (norm.weight.defined()) visitor(name + ".weight", norm.weight);
  if (norm.bias.defined()) visitor(name + ".bias", norm.bias);
}

int64_t bytes(const at::Tensor& tensor) { return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0; }
int64_t bytes(const Norm& norm) { return bytes(norm.weight) + bytes(norm.bias); }

}  // namespace

void visit(Decoder& decoder, const std::function<void(const std::string&, at::Tensor&)>& visitor) {
  visit_linear(decoder.embedding, "model.embed_tokens", visitor);
  if (decoder.position_embedding.defined()) visitor("model.embed_positions.weight", decoder.position_embedding);
  for (size_t i = 0; i < decoder.layers.size(); ++i) {
    DecoderLayer& layer = decoder.layers[i];
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    visit_norm(layer.attention_norm, prefix + "input_layernorm", visitor);
    visit_norm(layer.attention_output_norm, prefix + "attention_output_layernorm", visitor);
    visit_linear(layer.attention.query_key_value, prefix + "self_attn.qkv_proj", visitor);
    visit_norm(layer.attention.query_norm, prefix + "self_attn.q_norm", visitor);
    visit_norm(layer.attention.key_norm, prefix + "self_attn.k_norm", visitor);
    visit_linear(layer.attention.output, prefix + "self_attn.o_proj", visitor);
    visit_norm(layer.feed_forward_norm, prefix + "post_attention_layernorm", visitor);
    visit_norm(layer.feed_forward_output_norm, prefix + "feed_forward_output_layernorm", visitor);
    visit_linear(layer.feed_forward.gate_up, prefix + "mlp.gate_up_proj", visitor);
    visit_linear(layer.feed_forward.down, prefix + "mlp.down_proj", visitor);
  }
  visit_norm(decoder.norm, "model.norm", visitor);
  visit_linear(decoder.lm_head, "lm_head", visitor);
}

int64_t weight_bytes(const Decoder& decoder) {
  int64_t total =
      decoder.embedding.bytes() + bytes(decoder.position_embedding) + bytes(decoder.norm) + decoder.lm_head.bytes();
  for (const DecoderLayer& layer : decoder.layers) {
    total += layer.attention.query_key_value.bytes() + layer.attention.output.bytes() +
             layer.feed_forward.gate_up.bytes() + layer.feed_forward.down.bytes() + bytes(layer.attention_norm) +
             bytes(layer.attention_output_norm) + bytes(layer.feed_forward_norm) +
             bytes(layer.feed_forward_output_norm) + bytes(layer.attention.query_norm) +
             bytes(layer.attention.key_norm);
  }
  return total;
}

}  // namespace cepe::model
