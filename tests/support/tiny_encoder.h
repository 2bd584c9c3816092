// An encoder of random weights, and chunks for it.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>

#include <vector>

#include "context/chunk.h"
#include "model/cepe_model.h"

namespace cepe::test {

constexpr int64_t encoder_vocabulary = 50, encoder_width = 16, head_width = 8, heads = 2, groups = 1, feed_forward = 24;

inline model::Linear random_linear(int64_t rows, int64_t columns, at::ScalarType type) {
  return {(at::randn({rows, columns}) * 0.3).to(type), {}, nullptr};
}

inline model::Norm random_norm() { return {at::randn({encoder_width}), {}, 1e-5, model::NormKind::rms}; }

inline model::Adapter tiny_adapter(at::ScalarType type = at::kFloat, int64_t layers = 2) {
  model::Adapter adapter;
  model::Encoder& encoder = adapter.encoder;
  encoder.config.vocabulary = encoder_vocabulary;
  encoder.config.width = encoder_width;
  encoder.config.layers = layers;
  encoder.config.heads = heads;
  encoder.config.groups = groups;
  encoder.config.head_width = head_width;
  encoder.config.feed_forward = feed_forward;
  encoder.config.rope.width = head_width;
  encoder.activation_type = type;
  encoder.embedding = random_linear(encoder_vocabulary, encoder_width, type);
  for (int64_t i = 0; i < layers; ++i) {
    encoder.layers.push_back(
        {random_norm(),
         random_linear((heads + 2 * groups) * head_width, encoder_width, type),
         random_linear(encoder_width, heads * head_width, type),
         random_norm(),
         {random_linear(2 * feed_forward, encoder_width, type), random_linear(encoder_width, feed_forward, type)}});
  }
  encoder.norm = random_norm();
  return adapter;
}

inline std::vector<text::Token> some_ids(int64_t count, int64_t first) {
  std::vector<text::Token> ids;
  for (int64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<text::Token>((first + i * i + i * first) % encoder_vocabulary));
  return ids;
}

inline std::vector<context::Chunk> some_chunks() {
  std::vector<context::Chunk> chunks = context::split(some_ids(21, 3), 8, 0);
  for (const context::Chunk& chunk : context::split(some_ids(13, 11), 8, 1)) chunks.push_back(chunk);
  return chunks;
}

}  // namespace cepe::test
