#include "model/calibrate.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <span>
#include <string>

#include "base/error.h"
#include "base/interrupt.h"
#include "model/layer_walk.h"
#include "ops/calibrated_rounding.h"

namespace cepe::model {
namespace {

// Rows of one pass: bounds the memory of a layer's activations.
constexpr int64_t pass_rows = 4096;

[[noreturn]] void refuse_calibration(const std::string& message) {
  throw base::Error(base::ErrorCode::invalid_argument, "calibration: " + message);
}

// body(windows [b, T]) over all of them.
template <typename Body>
void over_passes(const at::Tensor& windows, const Body& body) {
  const int64_t step = std::max<int64_t>(1, pass_rows / windows.size(1));
  for (int64_t first = 0; first < windows.size(0); first += step) {
    base::throw_if_interrupted();
    body(windows.narrow(0, first, std::min(step, windows.size(0) - first)));
  }
}

// Those of the products that are dense, their inputs being watched from now on.
std::vector<Linear*> watched(std::span<Linear* const> products) {
  std::vector<Linear*> dense;
  for (Linear* linear : products) {
    if (!linear->weight.defined()) continue;
    linear->moments = std::make_shared<ops::InputMoments>();
    dense.push_back(linear);
  }
  return dense;
}

void quantise_watched(Linear& linear) {
  base::throw_if_interrupted();
  const at::Tensor moments = linear.moments->sums;
  linear.moments.reset();
  linear.packed = std::make_shared<ops::PackedWeight>(ops::quantise_calibrated(linear.weight, moments));
  linear.weight.reset();
}

std::vector<Linear*> products(DecoderLayer& layer) {
  return {&layer.attention.query_key_value, &layer.attention.output, &layer.feed_forward.gate_up,
          &layer.feed_forward.down};
}

// Chunks of a window's first half: [b, K, S].
at::Tensor context_chunks(const at::Tensor& windows, int64_t chunk_size) {
  const int64_t half = windows.size(1) / 2, size = std::clamp<int64_t>(chunk_size, 1, std::max<int64_t>(1, half));
  return windows.narrow(1, 0, half / size * size).reshape({windows.size(0), -1, size});
}

}  // namespace

DecoderCalibration::DecoderCalibration(const DecoderConfig& config, const at::Tensor& windows, at::Device device)
    : windows_(windows.to(device)) {
  if (windows.dim() != 2 || windows.numel() == 0 || windows.scalar_type() != at::kLong)
    refuse_calibration("expected token ids [windows, T]");
  const int64_t low = windows.min().item<int64_t>(), high = windows.max().item<int64_t>();
  if (low < 0 || high >= config.vocabulary) {
    refuse_calibration("token id " + std::to_string(low < 0 ? low : high) + " is outside the model's vocabulary of " +
                       std::to_string(config.vocabulary));
  }
  if (config.learned_positions && windows.size(1) > config.max_positions) {
    refuse_calibration("windows of " + std::to_string(windows.size(1)) + " tokens; the model has " +
                       std::to_string(config.max_positions) + " learned positions");
  }
}

void DecoderCalibration::advance(const Decoder& decoder, size_t count) {
  if (parts_.empty()) {
    over_passes(windows_, [&](const at::Tensor& windows) {
      BatchLayout layout = uniform_layout(windows);
      at::Tensor hidden = embed(decoder, layout);
      parts_.push_back({std::move(layout), std::move(hidden)});
    });
  }
  for (; layers_ < count; ++layers_) {
    for (Part& part : parts_) part.hidden = forward_layer(decoder, layers_, part.layout, part.hidden);
  }
}

void DecoderCalibration::quantise_last_layer(Decoder& decoder) {
  const at::NoGradGuard none;
  const size_t index = decoder.layers.size() - 1;
  const std::vector<Linear*> dense = watched(products(decoder.layers.back()));
  if (dense.empty()) return;
  found_any_ = true;
  advance(decoder, index);
  for (const Part& part : parts_) forward_layer(decoder, index, part.layout, part.hidden);
  for (Linear* linear : dense) quantise_watched(*linear);
}

void DecoderCalibration::quantise_head(Decoder& decoder) {
  const at::NoGradGuard none;
  Linear* head = &decoder.lm_head;
  if (watched({&head, 1}).empty()) return;
  advance(decoder, decoder.layers.size());
  for (const Part& part : parts_) ops::add_inputs(*head->moments, forward(decoder.norm, part.hidden));
  quantise_watched(*head);
}

void quantise_calibrated(Adapter& adapter, const Decoder& decoder, const at::Tensor& windows) {
  const at::NoGradGuard none;
  std::vector<Linear*> all;
  CrossAttentionInput cross;
  for (auto& block : adapter.cross_attention) {
    cross.blocks.push_back(block ? &*block : nullptr);
    if (block) all.insert(all.end(), {&block->query, &block->output});
  }
  const std::vector<Linear*> dense = watched(all);
  if (dense.empty()) return;
  over_passes(windows.to(decoder.device()), [&](const at::Tensor& part) {
    const auto contexts = encode_chunks(adapter.encoder, context_chunks(part, adapter.chunk_size), {});
    CrossAttentionInput input = cross;
    for (const ContextStates& context : contexts) input.contexts.push_back(&context);
    const int64_t half = part.size(1) / 2;
    forward(decoder, uniform_layout(part.narrow(1, half, part.size(1) - half)), nullptr, input);
  });
  for (Linear* linear : dense) quantise_watched(*linear);
}

}  // namespace cepe::model
