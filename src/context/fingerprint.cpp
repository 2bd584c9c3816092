// What decides the states, as one SHA-256. Weights are cut into pieces that are hashed side by side, so that a large
// encoder costs no more than reading it.
#include <ATen/Parallel.h>

#include <algorithm>

#include "context/context_store.h"
#include "context/projection_store.h"

namespace cepe::context {
namespace {

// These count up where the same weights are to give other states, other keys and values.
constexpr int64_t format_version = 1, projection_format = 1;
constexpr size_t piece_bytes = size_t{4} << 20;

class Fingerprint {
 public:
  template <class Number>
  void add(Number value) {
    static_assert(std::is_arithmetic_v<Number>);
    hash_.update_values(std::span<const Number>(&value, 1));
  }

  void add(std::span<const std::byte> bytes) {
    std::vector<base::Digest> digests((bytes.size() + piece_bytes - 1) / piece_bytes);
    at::parallel_for(0, static_cast<int64_t>(digests.size()), 1, [&](int64_t first, int64_t last) {
      for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
        const size_t place = i * piece_bytes;
        digests[i] = base::sha256(bytes.subspan(place, std::min(piece_bytes, bytes.size() - place)));
      }
    });
    add(bytes.size());
    for (const base::Digest& digest : digests) hash_.update(digest);
  }

  void add(const at::Tensor& tensor) {
    add(tensor.defined());
    if (!tensor.defined()) return;
    add(static_cast<int64_t>(tensor.scalar_type()));
    add(tensor.dim());
    for (const int64_t size : tensor.sizes()) add(size);
    const at::Tensor bytes = tensor.detach().cpu().contiguous();
    add(std::span(static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()));
  }

  void add(const model::Linear& linear) {
    add(linear.weight);
    add(linear.bias);
    add(linear.packed != nullptr);
    if (!linear.packed) return;
    add(static_cast<int64_t>(linear.packed->format));
    add(linear.packed->out_features);
    add(linear.packed->in_features);
    add(linear.packed->data);
    add(linear.packed->scales);
  }

  void add(const model::Norm& norm) {
    add(norm.weight);
    add(norm.bias);
    add(norm.eps);
    add(static_cast<int64_t>(norm.kind));
  }

  void add(const model::RopeConfig& rope) {
    add(rope.theta);
    add(rope.width);
    add(static_cast<int64_t>(rope.scaling));
    for (const double value : {rope.factor, rope.low_frequency_factor, rope.high_frequency_factor, rope.beta_fast,
                               rope.beta_slow, rope.attention_factor})
      add(value);
    add(rope.original_positions);
    add(std::as_bytes(std::span(rope.divisors)));
  }

  void add(const model::EncoderConfig& config) {
    for (const int64_t value : {config.vocabulary, config.width, config.layers, config.heads, config.groups,
                                config.head_width, config.feed_forward, static_cast<int64_t>(config.activation)})
      add(value);
    add(config.norm_eps);
    add(config.rope);
  }

  base::Digest finish() { return hash_.finish(); }

 private:
  base::Sha256 hash_;
};

}  // namespace

base::Digest encoder_fingerprint(const model::Encoder& encoder, StateType type) {
  Fingerprint print;
  print.add(format_version);
  print.add(static_cast<int64_t>(type == StateType::automatic ? stored_type(encoder) : at::kBFloat16));
  if (type == StateType::int8) print.add(int64_t{8});
  print.add(static_cast<int64_t>(encoder.activation_type));
  print.add(static_cast<int64_t>(encoder.norm.weight.device().type()));  // each kind of device rounds in its own way
  print.add(encoder.config);
  print.add(encoder.embedding);
  for (const model::EncoderLayer& layer : encoder.layers) {
    print.add(layer.attention_norm);
    print.add(layer.query_key_value);
    print.add(layer.output);
    print.add(layer.feed_forward_norm);
    print.add(layer.feed_forward.gate_up);
    print.add(layer.feed_forward.down);
  }
  print.add(encoder.norm);
  return print.finish();
}

base::Digest projection_fingerprint(const model::CepeModel& model) {
  Fingerprint print;
  print.add(projection_format);
  const model::HeadShape shape = model::head_shape(model.decoder.config);
  for (const int64_t value : {shape.groups, shape.width}) print.add(value);
  for (const model::CrossAttention* block : model::cross_attention_blocks(model)) {
    print.add(block != nullptr);
    if (!block) continue;
    for (const model::Linear* weight : {&block->key, &block->value})
      print.add(model::dense_weight(*weight, at::kFloat));
  }
  return print.finish();
}

}  // namespace cepe::context
