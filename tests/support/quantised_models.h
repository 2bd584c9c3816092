// Models whose weights are quantised against the same models left dense, on the CPU and on a GPU.
#pragma once

#include <ATen/core/grad_mode.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

#include "golden_tensors.h"
#include "model/batch_step.h"
#include "model/cepe_model.h"
#include "model/initialise_random.h"
#include "model/quantise.h"

namespace cepe::test {

inline const std::vector<std::pair<model::WeightType, double>> quantised_types = {
    {model::WeightType::int8, 0.03}, {model::WeightType::fp8, 0.1}, {model::WeightType::int4, 0.25}};

inline at::TensorOptions activations_on(at::Device device) {
  return at::TensorOptions(device).dtype(device.is_cpu() ? at::kFloat : at::kBFloat16);
}

// Widths for which a GPU has every kernel.
inline model::CepeModel random_model(at::Device device, std::optional<ops::PackedFormat> format) {
  const base::Json config = {
      {"model_type", "llama"},       {"vocab_size", 96},         {"hidden_size", 128},
      {"num_hidden_layers", 2},      {"num_attention_heads", 2}, {"num_key_value_heads", 1},
      {"intermediate_size", 256},    {"rms_norm_eps", 1e-5},     {"max_position_embeddings", 512},
      {"tie_word_embeddings", false}};
  const model::DecoderConfig decoder = model::read_decoder_config(config, "random model");
  model::EncoderConfig encoder;
  encoder.vocabulary = 96, encoder.width = 64, encoder.layers = 1, encoder.heads = encoder.groups = 2;
  encoder.head_width = encoder.rope.width = 32, encoder.feed_forward = 128;
  const at::TensorOptions options = activations_on(device);
  return {model::random_decoder(decoder, 5, options, format),
          model::random_adapter(decoder, encoder, {0, 1}, 5, options, format)};
}

inline at::Tensor random_tokens(at::IntArrayRef shape, at::Device device) {
  return at::randint(96, shape, at::TensorOptions(device).dtype(at::kLong));
}

inline model::ContextStates random_context(const model::CepeModel& model, at::Device device) {
  model::ContextStates context;
  for (const int64_t rows : {16, 9})
    context.append(model::forward(model.adapter->encoder, random_tokens({1, rows}, device))[0]);
  return context;
}

inline at::Tensor logits_of(const model::CepeModel& model, const at::Tensor& ids, int64_t cached,
                            const model::ContextStates& context, model::KvCache* cache,
                            model::CrossAttentionPath path = model::CrossAttentionPath::automatic) {
  const model::CrossAttentionInput cross = {model::cross_attention_blocks(model), {&context}, path};
  return model::logits(model.decoder, model::forward(model.decoder, model::single_layout(ids, cached), cache, cross));
}

// Few rows and many, by each way of the cross-attention.
inline void expect_quantised_models_near_dense_ones(at::Device device) {
  const at::NoGradGuard none;
  const model::CepeModel dense = random_model(device, {});
  const model::ContextStates context = random_context(dense, device);
  for (const auto& [type, tolerance] : quantised_types) {
    const model::CepeModel quantised = random_model(device, model::quantised_format(type));
    for (const int64_t rows : {1, 12, 40}) {
      const at::Tensor ids = random_tokens({rows}, device);
      for (const auto path : {model::CrossAttentionPath::absorbed, model::CrossAttentionPath::projected}) {
        const double found = distance(logits_of(quantised, ids, 0, context, nullptr, path),
                                      logits_of(dense, ids, 0, context, nullptr, path));
        EXPECT_LE(found, tolerance) << "type " << static_cast<int>(type) << ", " << rows << " rows";
        EXPECT_GT(found, 0) << "nothing was quantised";
      }
    }
  }
}

inline void expect_recorded_steps_of_quantised_models_as_plain_ones(at::Device device) {
  const at::NoGradGuard none;
  for (const auto& [type, tolerance] : quantised_types) {
    const model::CepeModel model = random_model(device, model::quantised_format(type));
    const model::ContextStates context = random_context(model, device);
    const model::DecoderConfig& config = model.decoder.config;
    const auto cache = [&] {
      return model::make_kv_cache(config.layers, 80, config.groups, config.head_width, activations_on(device));
    };
    model::KvCache usual = cache(), recorded = cache();
    ASSERT_TRUE(model::BatchStep::takes(model, recorded) && model::BatchStep::takes(model, context));
    const at::Tensor ids = random_tokens({30}, device);
    logits_of(model, ids.narrow(0, 0, 24), 0, context, &usual);
    logits_of(model, ids.narrow(0, 0, 24), 0, context, &recorded);
    const std::vector<int32_t> blocks = {0, 1};  // of 16 rows, in order
    model::BatchStep step(model, recorded, 16, 64);
    for (int64_t position = 24; position < 30; ++position) {
      const at::Tensor token = ids.narrow(0, position, 1);
      EXPECT_LE(distance(step.logits(token, std::array{model::BatchStep::Row{position, blocks, &context}}),
                         logits_of(model, token, position, context, &usual)),
                device.is_cpu() ? 1e-5 : 2e-2)
          << "type " << static_cast<int>(type) << ", position " << position;
    }
  }
}

}  // namespace cepe::test
