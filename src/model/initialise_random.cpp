#include "model/initialise_random.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "base/error.h"
#include "model/quantise.h"

namespace cepe::model {
namespace {

at::Generator generator_of(at::Device device, uint64_t seed) {
  if (device.is_cpu()) return at::detail::createCPUGenerator(seed);
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(seed);
  return generator;
}

class Draw {
 public:
  Draw(uint64_t seed, at::TensorOptions options)
      : options_(options), generator_(generator_of(options.device(), seed)) {}
  Linear linear(int64_t out, int64_t in) {
    return {at::empty({out, in}, options_).normal_(0, 0.02, generator_), {}, nullptr};
  }
  Norm norm(int64_t width, double eps) const { return {at::ones({width}, options_), {}, eps, NormKind::rms}; }

 private:
  at::TensorOptions options_;
  at::Generator generator_;
};

at::ScalarType type_of(at::TensorOptions options) { return options.dtype().toScalarType(); }

}  // namespace

Decoder random_decoder(const DecoderConfig& config, uint64_t seed, at::TensorOptions options,
                       std::optional<ops::PackedFormat> format) {
  const bool llama_like = config.norm == NormKind::rms && config.residual == ResidualOrder::norm_first &&
                          config.gated && config.query_key_norm == QueryKeyNorm::none && !config.learned_positions &&
                          !config.query_key_value_bias && !config.output_bias && !config.feed_forward_bias;
  if (!llama_like) {
    throw base::Error(base::ErrorCode::unsupported,
                      "a decoder from nothing must be Llama-like; family '" + config.family + "' is not");
  }
  Draw draw(seed, options);
  Decoder decoder;
  decoder.config = config;
  decoder.activation_type = type_of(options);
  decoder.embedding = draw.linear(config.vocabulary, config.width);
  const int64_t queries = config.heads * config.head_width, keys = config.groups * config.head_width;
  for (int64_t i = 0; i < config.layers; ++i) {
    DecoderLayer layer;
    layer.attention_norm = draw.norm(config.width, config.norm_eps);
    layer.attention.query_key_value = draw.linear(queries + 2 * keys, config.width);
    layer.attention.output = draw.linear(config.width, queries);
    layer.feed_forward_norm = draw.norm(config.width, config.norm_eps);
    layer.feed_forward = {draw.linear(2 * config.feed_forward, config.width),
                          draw.linear(config.width, config.feed_forward)};
    if (format) quantise(layer, *format);
    decoder.layers.push_back(std::move(layer));
  }
  decoder.norm = draw.norm(config.width, config.norm_eps);
  if (!config.tied) decoder.lm_head = draw.linear(config.vocabulary, config.width);
  if (format) quantise(decoder.lm_head, *format);
  return decoder;
}

Encoder random_encoder(const EncoderConfig& config, uint64_t seed, at::TensorOptions options) {
  Draw draw(seed, options);
  Encoder encoder;
  encoder.config = config;
  encoder.activation_type = type_of(options);
  encoder.embedding = draw.linear(config.vocabulary, config.width);
  const int64_t queries = config.heads * config.head_width, keys = config.groups * config.head_width;
  for (int64_t i = 0; i < config.layers; ++i) {
    encoder.layers.push_back(
        {draw.norm(config.width, config.norm_eps),
         draw.linear(queries + 2 * keys, config.width),
         draw.linear(config.width, queries),
         draw.norm(config.width, config.norm_eps),
         {draw.linear(2 * config.feed_forward, config.width), draw.linear(config.width, config.feed_forward)}});
  }
  encoder.norm = draw.norm(config.width, config.norm_eps);
  return encoder;
}

Adapter random_adapter(const DecoderConfig& decoder, const EncoderConfig& encoder, const std::vector<int64_t>& layers,
                       uint64_t seed, at::TensorOptions options, std::optional<ops::PackedFormat> format) {
  Adapter adapter;
  adapter.encoder = random_encoder(encoder, seed, options);
  adapter.cross_attention.resize(static_cast<size_t>(decoder.layers));
  Draw draw(seed + 1, options);
  const int64_t queries = decoder.heads * decoder.head_width, keys = decoder.groups * decoder.head_width;
  for (const int64_t layer : layers) {
    CrossAttention block = {draw.norm(decoder.width, decoder.norm_eps), draw.linear(queries, decoder.width),
                            draw.linear(keys, encoder.width), draw.linear(keys, encoder.width),
                            draw.linear(decoder.width, queries)};
    if (format) quantise(block, *format);
    adapter.cross_attention.at(static_cast<size_t>(layer)) = std::move(block);
  }
  return adapter;
}

MaskedLanguageModel random_masked_language_model(const EncoderConfig& config, uint64_t seed) {
  MaskedLanguageModel model;
  model.encoder = random_encoder(config, seed);
  Draw draw(seed + 1, at::kFloat);
  model.dense = draw.linear(config.width, config.width);
  model.dense.bias = at::zeros({config.width});
  model.norm = draw.norm(config.width, config.norm_eps);
  model.output = {model.encoder.embedding.weight, at::zeros({config.vocabulary}), nullptr};
  return model;
}

}  // namespace cepe::model
