#include "model/initialise.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "base/error.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;

at::Tensor random_normal(int64_t rows, int64_t columns, double deviation, at::Generator& generator) {
  return at::empty({rows, columns}, at::kFloat).normal_(0, deviation, generator);
}

// A frozen weight in float32, its own copy.
Linear thawed(const Linear& linear) {
  return {dense_weight(linear, at::kFloat).to(at::kCPU, at::kFloat).clone(), {}, nullptr};
}
Norm thawed(const Norm& norm) {
  const at::Tensor weight = norm.weight.to(at::kCPU, at::kFloat);
  return {norm.kind == NormKind::rms_unit_offset ? weight + 1 : weight.clone(), {}, norm.eps, NormKind::rms};
}

// The fused self-attention's rows [q; k; v], whatever their layout.
std::vector<at::Tensor> split_query_key_value(const DecoderConfig& config, const SelfAttention& attention) {
  const at::Tensor fused = dense_weight(attention.query_key_value, at::kFloat).to(at::kCPU);
  const int64_t width = config.head_width;
  if (attention.interleaved) {
    const at::Tensor parts = fused.reshape({config.heads, 3, width, -1});
    std::vector<at::Tensor> split;
    for (int64_t i = 0; i < 3; ++i) split.push_back(parts.select(1, i).reshape({config.heads * width, -1}));
    return split;
  }
  return fused.split_with_sizes({config.heads * width, config.groups * width, config.groups * width}, 0);
}

void check_encoder_fits(const DecoderConfig& config) {
  const bool llama_blocks = config.norm == NormKind::rms && config.residual == ResidualOrder::norm_first &&
                            config.gated && config.query_key_norm == QueryKeyNorm::none && !config.learned_positions &&
                            !config.query_key_value_bias && !config.output_bias && !config.feed_forward_bias &&
                            config.embedding_scale == 1;
  if (!llama_blocks) {
    throw Error(ErrorCode::unsupported,
                "an encoder made of the decoder's own layers needs Llama blocks (RMSNorm first, gated feed-forward, no "
                "biases); family '" +
                    config.family + "' has others");
  }
}

}  // namespace

CrossAttentionStart cross_attention_start(const std::string& name) {
  if (name == "copy") return CrossAttentionStart::copy;
  if (name == "zero") return CrossAttentionStart::zero;
  if (name == "normal") return CrossAttentionStart::normal;
  if (name == "none") return CrossAttentionStart::none;
  if (name == "scaled") return CrossAttentionStart::scaled;
  throw Error(ErrorCode::invalid_argument, "initialisation '" + name + "': known are copy, zero, normal, none, scaled");
}

CrossAttention initialise_cross_attention(const Decoder& decoder, int64_t layer, int64_t encoder_width,
                                          CrossAttentionStart start, uint64_t seed) {
  const at::NoGradGuard none;
  const DecoderConfig& config = decoder.config;
  const int64_t query_rows = config.heads * config.head_width, key_rows = config.groups * config.head_width;
  at::Generator generator = at::detail::createCPUGenerator(seed + static_cast<uint64_t>(layer));
  CrossAttention block;
  block.norm = {at::ones({config.width}), {}, config.norm_eps, NormKind::rms};
  if (start == CrossAttentionStart::none || start == CrossAttentionStart::scaled) {
    const double deviation =
        start == CrossAttentionStart::none ? 0.02 : 1 / std::sqrt(static_cast<double>(config.width));
    block.query.weight = random_normal(query_rows, config.width, deviation, generator);
    block.key.weight = random_normal(key_rows, encoder_width, deviation, generator);
    block.value.weight = random_normal(key_rows, encoder_width, deviation, generator);
    block.output.weight = start == CrossAttentionStart::none
                              ? random_normal(config.width, query_rows, deviation, generator)
                              : at::zeros({config.width, query_rows});
    return block;
  }
  if (encoder_width > config.width) {
    throw Error(ErrorCode::invalid_argument,
                "an encoder of width " + std::to_string(encoder_width) + " cannot start from a decoder of width " +
                    std::to_string(config.width) + "; use initialisation 'none' or 'scaled'");
  }
  const DecoderLayer& source = decoder.layers.at(static_cast<size_t>(layer));
  const std::vector<at::Tensor> parts = split_query_key_value(config, source.attention);
  block.query.weight = parts[0].clone();
  block.key.weight = parts[1].narrow(1, 0, encoder_width).clone();
  block.value.weight = parts[2].narrow(1, 0, encoder_width).clone();
  if (source.feed_forward_norm) block.norm = thawed(source.feed_forward_norm);
  if (start == CrossAttentionStart::copy) block.output = thawed(source.attention.output);
  if (start == CrossAttentionStart::zero) block.output.weight = at::zeros({config.width, query_rows});
  // Kaiming normal for a ReLU-like fan in: std sqrt(2 / in).
  if (start == CrossAttentionStart::normal)
    block.output.weight =
        random_normal(config.width, query_rows, std::sqrt(2.0 / static_cast<double>(query_rows)), generator);
  return block;
}

void check_layers(std::span<const int64_t> layers, int64_t decoder_layers, const std::string& where) {
  for (const int64_t layer : layers) {
    if (layer < 0 || layer >= decoder_layers) {
      throw Error(ErrorCode::invalid_argument, where + "cross-attention in layer " + std::to_string(layer) +
                                                   "; the decoder has layers 0 to " +
                                                   std::to_string(decoder_layers - 1));
    }
  }
}

Adapter initialise_adapter(const Decoder& decoder, const AdapterShape& shape) {
  const at::NoGradGuard none;
  const DecoderConfig& config = decoder.config;
  check_encoder_fits(config);
  if (shape.encoder_layers < 1 || shape.encoder_layers > config.layers) {
    throw Error(ErrorCode::invalid_argument, std::to_string(shape.encoder_layers) +
                                                 " encoder layers: an encoder made of the decoder's own first layers "
                                                 "has 1 to " +
                                                 std::to_string(config.layers));
  }
  Adapter adapter;
  adapter.chunk_size = shape.chunk_size;
  adapter.encoder.config = {0,
                            config.width,
                            shape.encoder_layers,
                            config.heads,
                            config.groups,
                            config.head_width,
                            config.feed_forward,
                            config.activation,
                            config.norm_eps,
                            config.rope,
                            true};
  adapter.encoder.embedding = decoder.embedding;
  for (int64_t i = 0; i < shape.encoder_layers; ++i) {
    const DecoderLayer& source = decoder.layers[static_cast<size_t>(i)];
    adapter.encoder.layers.push_back({thawed(source.attention_norm),
                                      thawed(source.attention.query_key_value),
                                      thawed(source.attention.output),
                                      thawed(source.feed_forward_norm),
                                      {thawed(source.feed_forward.gate_up), thawed(source.feed_forward.down)}});
  }
  adapter.encoder.norm = {at::ones({config.width}), {}, config.norm_eps, NormKind::rms};
  check_layers(shape.cross_attention_layers, config.layers, "");
  adapter.cross_attention.resize(static_cast<size_t>(config.layers));
  for (const int64_t layer : shape.cross_attention_layers) {
    adapter.cross_attention[static_cast<size_t>(layer)] =
        initialise_cross_attention(decoder, layer, config.width, shape.start, shape.seed);
  }
  return adapter;
}

}  // namespace cepe::model
