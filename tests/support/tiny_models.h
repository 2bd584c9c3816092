// Tiny random models, built by hand: the same seed gives the same weights. Everything that could hide a mistake is
// there: grouped heads, an encoder of another width with an eps and a theta of its own, norms that are not one, and
// cross-attention that matters.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randint.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/cepe_model.h"

namespace cepe::test {

struct TinyShape {
  int64_t vocabulary = 96, width = 32, layers = 3, heads = 4, groups = 2, head_width = 8, feed_forward = 64;
  int64_t encoder_width = 24, encoder_layers = 2, encoder_heads = 6, encoder_groups = 3, encoder_head_width = 4,
          encoder_feed_forward = 40;
  std::vector<int64_t> cross_attention_layers = {1, 2};
  bool shared_embeddings = false;  // needs encoder_width == width
};

// Draws weights one after the other.
class TinyWeights {
 public:
  explicit TinyWeights(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}

  // [out, in] with outputs of about the inputs' size.
  model::Linear linear(int64_t out, int64_t in) {
    return {
        at::empty({out, in}, at::kFloat).normal_(0, 1 / std::sqrt(static_cast<double>(in)), generator_), {}, nullptr};
  }
  model::Linear table(int64_t rows, int64_t width) {
    return {at::empty({rows, width}, at::kFloat).normal_(0, 1, generator_), {}, nullptr};
  }
  model::Norm norm(int64_t width, double eps) {
    return {at::empty({width}, at::kFloat).normal_(1, 0.2, generator_), {}, eps, model::NormKind::rms};
  }
  at::Tensor tokens(at::IntArrayRef shape, int64_t vocabulary) {
    return at::randint(vocabulary, shape, generator_, at::kLong);
  }

 private:
  at::Generator generator_;
};

inline model::Decoder tiny_decoder(uint64_t seed, const TinyShape& shape = {}) {
  TinyWeights weights(seed);
  model::Decoder decoder;
  model::DecoderConfig& config = decoder.config;
  config.family = "llama";
  config.vocabulary = shape.vocabulary, config.width = shape.width, config.layers = shape.layers;
  config.heads = shape.heads, config.groups = shape.groups, config.head_width = shape.head_width;
  config.feed_forward = shape.feed_forward, config.max_positions = 512, config.norm_eps = 1e-5;
  config.rope.width = shape.head_width;
  config.windows.assign(static_cast<size_t>(shape.layers), 0);
  config.attention_scale = 1 / std::sqrt(static_cast<double>(shape.head_width));
  const int64_t query_rows = shape.heads * shape.head_width, key_rows = shape.groups * shape.head_width;
  decoder.embedding = weights.table(shape.vocabulary, shape.width);
  for (int64_t i = 0; i < shape.layers; ++i) {
    model::DecoderLayer layer;
    layer.attention_norm = weights.norm(shape.width, config.norm_eps);
    layer.attention.query_key_value = weights.linear(query_rows + 2 * key_rows, shape.width);
    layer.attention.output = weights.linear(shape.width, query_rows);
    layer.feed_forward_norm = weights.norm(shape.width, config.norm_eps);
    layer.feed_forward = {weights.linear(2 * shape.feed_forward, shape.width),
                          weights.linear(shape.width, shape.feed_forward)};
    decoder.layers.push_back(std::move(layer));
  }
  decoder.norm = weights.norm(shape.width, config.norm_eps);
  decoder.lm_head = weights.linear(shape.vocabulary, shape.width);
  return decoder;
}

inline model::Encoder tiny_encoder(uint64_t seed, const TinyShape& shape = {}) {
  TinyWeights weights(seed + 1000);
  model::Encoder encoder;
  model::EncoderConfig& config = encoder.config;
  const int64_t width = shape.encoder_width, query_rows = shape.encoder_heads * shape.encoder_head_width,
                key_rows = shape.encoder_groups * shape.encoder_head_width;
  config.vocabulary = shape.vocabulary + 1, config.width = width, config.layers = shape.encoder_layers;
  config.heads = shape.encoder_heads, config.groups = shape.encoder_groups;
  config.head_width = shape.encoder_head_width, config.feed_forward = shape.encoder_feed_forward;
  config.norm_eps = 0.03, config.rope.theta = 50, config.rope.width = shape.encoder_head_width;
  config.shares_embeddings = shape.shared_embeddings;
  encoder.embedding = weights.table(config.vocabulary, width);
  for (int64_t i = 0; i < config.layers; ++i) {
    encoder.layers.push_back(
        {weights.norm(width, config.norm_eps),
         weights.linear(query_rows + 2 * key_rows, width),
         weights.linear(width, query_rows),
         weights.norm(width, config.norm_eps),
         {weights.linear(2 * config.feed_forward, width), weights.linear(width, config.feed_forward)}});
  }
  encoder.norm = weights.norm(width, config.norm_eps);
  return encoder;
}

inline model::CepeModel tiny_model(uint64_t seed, const TinyShape& shape = {}) {
  TinyWeights weights(seed + 2000);
  model::CepeModel model = {tiny_decoder(seed, shape), model::Adapter{}};
  model::Adapter& adapter = *model.adapter;
  adapter.encoder = tiny_encoder(seed, shape);
  if (shape.shared_embeddings) adapter.encoder.embedding = model.decoder.embedding;
  adapter.chunk_size = 8;
  adapter.cross_attention.resize(static_cast<size_t>(shape.layers));
  const int64_t query_rows = shape.heads * shape.head_width, key_rows = shape.groups * shape.head_width;
  for (const int64_t layer : shape.cross_attention_layers) {
    adapter.cross_attention[static_cast<size_t>(layer)] =
        model::CrossAttention{weights.norm(shape.width, model.decoder.config.norm_eps),
                              weights.linear(query_rows, shape.width), weights.linear(key_rows, shape.encoder_width),
                              weights.linear(key_rows, shape.encoder_width), weights.linear(shape.width, query_rows)};
  }
  return model;
}

// The same model with all values of another type and device, activations too.
inline model::CepeModel with_values(model::CepeModel model, const at::TensorOptions& options) {
  const at::ScalarType type = options.dtype().toScalarType();
  const auto there = [&](at::Tensor& weight) { weight = weight.to(options.device(), type); };
  model::visit(model.decoder, [&](const std::string&, at::Tensor& weight) { there(weight); });
  model::visit_parameters(*model.adapter, there);
  model.decoder.activation_type = model.adapter->encoder.activation_type = type;
  return model;
}

}  // namespace cepe::test
