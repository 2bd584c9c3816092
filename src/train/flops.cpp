#include "train/flops.h"

#include <algorithm>

namespace cepe::train {
namespace {

// Forward operations, and how many times as many forward and backward together are.
struct Work {
  double forward = 0;
  double times = 1;
  double total() const { return forward * times; }
};

constexpr double all_gradients = 3;   // forward, the input's gradient, the weight's
constexpr double input_gradient = 2;  // a frozen weight above something that is trained

bool is_trained(const at::Tensor& leaf) { return leaf.requires_grad(); }

double encoder_flops(const model::Encoder& encoder, double tokens, double chunk) {
  const model::EncoderConfig& config = encoder.config;
  const auto width = static_cast<double>(config.width), heads = static_cast<double>(config.heads * config.head_width),
             groups = static_cast<double>(config.groups * config.head_width),
             hidden = static_cast<double>(config.feed_forward);
  const double matrices = width * (2 * heads + 2 * groups) + 3 * width * hidden;
  const double layer = 2 * matrices + 4 * heads * chunk;
  const bool trained = is_trained(encoder.norm.weight);
  return tokens * layer * static_cast<double>(config.layers) * (trained ? all_gradients : 1);
}

double decoder_layer_matrices(const model::DecoderLayer& layer) {
  const auto size = [](const model::Linear& linear) {
    return static_cast<double>(linear.out_features() * linear.in_features());
  };
  return size(layer.attention.query_key_value) + size(layer.attention.output) + size(layer.feed_forward.gate_up) +
         size(layer.feed_forward.down);
}

double cross_attention_flops(const model::DecoderConfig& config, double encoder_width, double tokens, double encoded,
                             double seen) {
  const auto heads = static_cast<double>(config.heads * config.head_width),
             groups = static_cast<double>(config.groups * config.head_width), width = static_cast<double>(config.width);
  const double projections = 2 * tokens * 2 * width * heads + 2 * encoded * 2 * encoder_width * groups;
  return (projections + 4 * heads * seen) * all_gradients;  // seen: context rows summed over all query rows
}

}  // namespace

double training_flops(const Trainee& trainee, const Batch& batch) {
  const auto samples = static_cast<double>(batch.tokens.size(0));
  if (trainee.masked) {
    const double tokens = samples * static_cast<double>(batch.tokens.size(1));
    const model::Linear& output = trainee.masked->output;
    return encoder_flops(trainee.masked->encoder, tokens, static_cast<double>(batch.tokens.size(1))) +
           all_gradients * 2 * tokens * static_cast<double>(output.weight.numel());
  }
  const model::Decoder& decoder = trainee.model.decoder;
  const model::DecoderConfig& config = decoder.config;
  const double tokens = samples * static_cast<double>(batch.windows * batch.decoder_tokens);
  const double attention =
      4 * static_cast<double>(config.heads * config.head_width) * static_cast<double>(batch.decoder_tokens) / 2;
  const bool whole = is_trained(decoder.norm.weight);
  double seen = 0;
  for (const auto& slice : batch.slices)
    seen += samples * static_cast<double>(batch.decoder_tokens * (slice.rows + slice.others));
  const double encoded = samples * static_cast<double>(batch.encoded_tokens());

  double total = 0;
  bool below = whole;  // whether something at or below this layer is trained
  for (size_t i = 0; i < decoder.layers.size(); ++i) {
    const bool low_rank = !decoder.layers[i].attention.query_key_value.low_rank.empty();
    const bool crossed = trainee.model.adapter && trainee.model.adapter->cross_attention[i] && encoded > 0;
    // Cross-attention stands behind the self-attention: of the first such layer, only what follows it has a gradient.
    const double factor = whole ? all_gradients : below || low_rank ? input_gradient : 1;
    total += Work{tokens * (2 * decoder_layer_matrices(decoder.layers[i]) + attention), factor}.total();
    if (crossed)
      total += cross_attention_flops(config, static_cast<double>(trainee.model.adapter->encoder.config.width), tokens,
                                     encoded, seen);
    below = below || crossed || low_rank;
  }
  const double output = 2 * tokens * static_cast<double>(config.vocabulary * config.width);
  total += output * (whole ? all_gradients : input_gradient);
  if (trainee.model.adapter)
    total +=
        encoder_flops(trainee.model.adapter->encoder, encoded, static_cast<double>(trainee.model.adapter->chunk_size));
  return total;
}

}  // namespace cepe::train
