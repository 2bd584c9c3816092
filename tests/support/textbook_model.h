// The method as the paper writes it: plain loops in float64 over vectors, one token and one head at a time. Slow, and
// shares no arithmetic with src/. Llama decoders only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>
#include <functional>
#include <vector>

#include "model/cepe_model.h"

namespace cepe::test {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

inline Rows rows_of(const at::Tensor& matrix) {  // [n, m]
  const at::Tensor wide = matrix.detach().to(at::kDouble).contiguous();
  Rows rows;
  for (int64_t i = 0; i < wide.size(0); ++i) {
    const double* first = wide.const_data_ptr<double>() + i * wide.size(1);
    rows.emplace_back(first, first + wide.size(1));
  }
  return rows;
}

inline Rows product(const at::Tensor& weight, const Rows& x) {
  const Rows matrix = rows_of(weight);
  Rows y;
  for (const Row& row : x) {
    Row out;
    for (const Row& of_output : matrix) {
      double sum = 0;
      for (size_t i = 0; i < row.size(); ++i) sum += of_output[i] * row[i];
      out.push_back(sum);
    }
    y.push_back(out);
  }
  return y;
}

inline Rows sum(const Rows& a, const Rows& b) {
  Rows c = a;
  for (size_t i = 0; i < c.size(); ++i)
    for (size_t j = 0; j < c[i].size(); ++j) c[i][j] += b[i][j];
  return c;
}

// w * x / sqrt(mean x^2 + eps)
inline Rows rms_norm(const at::Tensor& weight, double eps, Rows x) {
  const Row w = rows_of(weight.unsqueeze(0)).front();
  for (Row& row : x) {
    double squares = 0;
    for (const double value : row) squares += value * value;
    const double root = std::sqrt(squares / static_cast<double>(row.size()) + eps);
    for (size_t i = 0; i < row.size(); ++i) row[i] *= w[i] / root;
  }
  return x;
}

// Channels i and i + D/2 of every head turn by position * theta^(-2i/D); row t stands at position t.
inline Rows rotated(Rows x, size_t head_width, double theta) {
  for (size_t t = 0; t < x.size(); ++t) {
    for (size_t first = 0; first < x[t].size(); first += head_width) {
      for (size_t i = 0; i < head_width / 2; ++i) {
        const double angle =
            static_cast<double>(t) * std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_width));
        double& a = x[t][first + i];
        double& b = x[t][first + i + head_width / 2];
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + a * std::sin(angle);
        a = turned;
      }
    }
  }
  return x;
}

// Query head h reads key/value head floor(h / (H/G)); query t sees key j where visible(t, j).
inline Rows attention(const Rows& queries, const Rows& keys, const Rows& values, size_t heads, size_t groups,
                      size_t width, const std::function<bool(size_t, size_t)>& visible) {
  Rows out(queries.size(), Row(heads * width, 0.0));
  for (size_t t = 0; t < queries.size(); ++t) {
    for (size_t h = 0; h < heads; ++h) {
      const size_t g = h / (heads / groups);
      Row weights;
      double total = 0;
      for (size_t j = 0; j < keys.size(); ++j) {
        double score = 0;
        for (size_t d = 0; d < width; ++d) score += queries[t][h * width + d] * keys[j][g * width + d];
        weights.push_back(visible(t, j) ? std::exp(score / std::sqrt(static_cast<double>(width))) : 0.0);
        total += weights.back();
      }
      for (size_t j = 0; j < keys.size(); ++j)
        for (size_t d = 0; d < width; ++d) out[t][h * width + d] += weights[j] / total * values[j][g * width + d];
    }
  }
  return out;
}

// down(silu(gate x) * up x), gate and up under one another.
inline Rows feed_forward(const model::FeedForward& block, const Rows& x) {
  const int64_t width = block.gate_up.weight.size(0) / 2;
  const Rows gate = product(block.gate_up.weight.narrow(0, 0, width), x);
  Rows hidden = product(block.gate_up.weight.narrow(0, width, width), x);
  for (size_t t = 0; t < hidden.size(); ++t)
    for (size_t i = 0; i < hidden[t].size(); ++i) hidden[t][i] *= gate[t][i] / (1 + std::exp(-gate[t][i]));
  return product(block.down.weight, hidden);
}

struct TextbookHeads {
  int64_t heads, groups, width;
};

inline Rows self_attention(const at::Tensor& fused, const at::Tensor& output, const TextbookHeads& shape, double theta,
                           const Rows& x, const std::function<bool(size_t, size_t)>& visible) {
  const auto part = [&](int64_t first, int64_t count) {
    return product(fused.narrow(0, first * shape.width, count * shape.width), x);
  };
  const auto width = static_cast<size_t>(shape.width);
  return product(output, attention(rotated(part(0, shape.heads), width, theta),
                                   rotated(part(shape.heads, shape.groups), width, theta),
                                   part(shape.heads + shape.groups, shape.groups), static_cast<size_t>(shape.heads),
                                   static_cast<size_t>(shape.groups), width, visible));
}

// States of the real tokens of one chunk: ids [S], mask [S] (non-zero = real).
inline Rows textbook_states(const model::Encoder& encoder, const std::vector<int64_t>& ids,
                            const std::vector<int64_t>& mask) {
  const model::EncoderConfig& config = encoder.config;
  const Rows table = rows_of(encoder.embedding.weight);
  Rows hidden;
  for (const int64_t id : ids) hidden.push_back(table[static_cast<size_t>(id)]);
  for (const model::EncoderLayer& layer : encoder.layers) {
    hidden = sum(hidden, self_attention(layer.query_key_value.weight, layer.output.weight,
                                        {config.heads, config.groups, config.head_width}, config.rope.theta,
                                        rms_norm(layer.attention_norm.weight, config.norm_eps, hidden),
                                        [&](size_t, size_t j) { return mask[j] != 0; }));
    hidden = sum(hidden,
                 feed_forward(layer.feed_forward, rms_norm(layer.feed_forward_norm.weight, config.norm_eps, hidden)));
  }
  const Rows all = rms_norm(encoder.norm.weight, config.norm_eps, hidden);
  Rows real;
  for (size_t t = 0; t < all.size(); ++t)
    if (mask[t] != 0) real.push_back(all[t]);
  return real;
}

// Logits [T][V] of one sequence that attends to `states` [M][E] (none: the decoder alone).
inline Rows textbook_logits(const model::CepeModel& model, const std::vector<int64_t>& ids, const Rows& states) {
  const model::Decoder& decoder = model.decoder;
  const model::DecoderConfig& config = decoder.config;
  const Rows table = rows_of(decoder.embedding.weight);
  Rows hidden;
  for (const int64_t id : ids) hidden.push_back(table[static_cast<size_t>(id)]);
  for (size_t i = 0; i < decoder.layers.size(); ++i) {
    const model::DecoderLayer& layer = decoder.layers[i];
    hidden = sum(hidden, self_attention(layer.attention.query_key_value.weight, layer.attention.output.weight,
                                        {config.heads, config.groups, config.head_width}, config.rope.theta,
                                        rms_norm(layer.attention_norm.weight, config.norm_eps, hidden),
                                        [](size_t t, size_t j) { return j <= t; }));
    const auto& cross = model.adapter->cross_attention[i];
    if (cross && !states.empty()) {
      const Rows queries = product(cross->query.weight, rms_norm(cross->norm.weight, config.norm_eps, hidden));
      const Rows gathered = attention(queries, product(cross->key.weight, states), product(cross->value.weight, states),
                                      static_cast<size_t>(config.heads), static_cast<size_t>(config.groups),
                                      static_cast<size_t>(config.head_width), [](size_t, size_t) { return true; });
      hidden = sum(hidden, product(cross->output.weight, gathered));
    }
    hidden = sum(hidden,
                 feed_forward(layer.feed_forward, rms_norm(layer.feed_forward_norm.weight, config.norm_eps, hidden)));
  }
  return product(decoder.lm_head.weight, rms_norm(decoder.norm.weight, config.norm_eps, hidden));
}

}  // namespace cepe::test
