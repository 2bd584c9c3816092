#include "model/initialise_random.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "base/error.h"

namespace cepe::model {
namespace {

class Draw {
 public:
  explicit Draw(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}
  Linear linear(int64_t out, int64_t in) {
    return {at::empty({out, in}, at::kFloat).normal_(0, 0.02, generator_), {}, nullptr};
  }

 private:
  at::Generator generator_;
};

Norm norm_of_ones(int64_t width, double eps) { return {at::ones({width}), {}, eps, NormKind::rms}; }

}  // namespace

Decoder random_decoder(const DecoderConfig& config, uint64_t seed) {
  const bool llama_like = config.norm == NormKind::rms && config.residual == ResidualOrder::norm_first &&
                          config.gated && config.query_key_norm == QueryKeyNorm::none && !config.learned_positions &&
                          !config.query_key_value_bias && !config.output_bias && !config.feed_forward_bias;
  if (!llama_like) {
    throw base::Error(base::ErrorCode::unsupported,
                      "a decoder from nothing must be Llama-like; family '" + config.family + "' is not");
  }
  Draw draw(seed);
  Decoder decoder;
  decoder.config = config;
  decoder.embedding = draw.linear(config.vocabulary, config.width);
  const int64_t queries = config.heads * config.head_width, keys = config.groups * config.head_width;
  for (int64_t i = 0; i < config.layers; ++i) {
    DecoderLayer layer;
    layer.attention_norm = norm_of_ones(config.width, config.norm_eps);
    layer.attention.query_key_value = draw.linear(queries + 2 * keys, config.width);
    layer.attention.output = draw.linear(config.width, queries);
    layer.feed_forward_norm = norm_of_ones(config.width, config.norm_eps);
    layer.feed_forward = {draw.linear(2 * config.feed_forward, config.width),
                          draw.linear(config.width, config.feed_forward)};
    decoder.layers.push_back(std::move(layer));
  }
  decoder.norm = norm_of_ones(config.width, config.norm_eps);
  if (!config.tied) decoder.lm_head = draw.linear(config.vocabulary, config.width);
  return decoder;
}

Encoder random_encoder(const EncoderConfig& config, uint64_t seed) {
  Draw draw(seed);
  Encoder encoder;
  encoder.config = config;
  encoder.embedding = draw.linear(config.vocabulary, config.width);
  const int64_t queries = config.heads * config.head_width, keys = config.groups * config.head_width;
  for (int64_t i = 0; i < config.layers; ++i) {
    encoder.layers.push_back(
        {norm_of_ones(config.width, config.norm_eps),
         draw.linear(queries + 2 * keys, config.width),
         draw.linear(config.width, queries),
         norm_of_ones(config.width, config.norm_eps),
         {draw.linear(2 * config.feed_forward, config.width), draw.linear(config.width, config.feed_forward)}});
  }
  encoder.norm = norm_of_ones(config.width, config.norm_eps);
  return encoder;
}

MaskedLanguageModel random_masked_language_model(const EncoderConfig& config, uint64_t seed) {
  MaskedLanguageModel model;
  model.encoder = random_encoder(config, seed);
  Draw draw(seed + 1);
  model.dense = draw.linear(config.width, config.width);
  model.dense.bias = at::zeros({config.width});
  model.norm = norm_of_ones(config.width, config.norm_eps);
  model.output = {model.encoder.embedding.weight, at::zeros({config.vocabulary}), nullptr};
  return model;
}

}  // namespace cepe::model
