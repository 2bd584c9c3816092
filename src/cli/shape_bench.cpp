#include "cli/shape_bench.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randint.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/parse_values.h"
#include "cli/measure.h"
#include "model/initialise_random.h"
#include "ops/device.h"
#include "ops/int8_rows.h"

namespace cepe::cli {
namespace {

using base::Json;

model::EncoderConfig encoder_of(int64_t vocabulary, int64_t width, int64_t layers, int64_t heads, int64_t groups,
                                int64_t feed_forward) {
  model::EncoderConfig encoder;
  encoder.vocabulary = vocabulary;
  encoder.width = width;
  encoder.layers = layers;
  encoder.heads = heads;
  encoder.groups = groups;
  encoder.head_width = width / heads;
  encoder.feed_forward = feed_forward;
  encoder.rope.width = encoder.head_width;
  return encoder;
}

model::DecoderConfig llama(int64_t vocabulary, int64_t width, int64_t layers, int64_t heads, int64_t groups,
                           int64_t feed_forward) {
  const Json config = {{"model_type", "llama"},
                       {"vocab_size", vocabulary},
                       {"hidden_size", width},
                       {"num_hidden_layers", layers},
                       {"num_attention_heads", heads},
                       {"num_key_value_heads", groups},
                       {"intermediate_size", feed_forward},
                       {"max_position_embeddings", int64_t{1} << 21},
                       {"rms_norm_eps", 1e-5},
                       {"tie_word_embeddings", false}};
  return model::read_decoder_config(config, "--shape");
}

// The published 7B setting, and a small one of the same kind that a CPU can run.
std::vector<Shape> shapes() {
  return {{"llama2-7b", llama(32000, 4096, 32, 32, 32, 11008), encoder_of(32000, 1024, 24, 16, 16, 4096)},
          {"tiny", llama(512, 128, 2, 4, 2, 256), encoder_of(512, 64, 2, 4, 4, 128)}};
}

double real(int64_t count) { return static_cast<double>(count); }

}  // namespace

std::string shape_names() {
  std::string names;
  for (const Shape& shape : shapes()) names += (names.empty() ? "" : ", ") + std::string(shape.name);
  return names;
}

Shape find_shape(const std::string& name) {
  for (Shape& shape : shapes())
    if (shape.name == name) return shape;
  throw base::Error(base::ErrorCode::invalid_argument, "--shape '" + name + "': known are " + shape_names());
}

double encoder_operations(const Shape& shape, double tokens) {
  const model::EncoderConfig& c = shape.encoder;
  const double width = real(c.width), keys = real(c.groups * c.head_width);
  const double layer = 2 * width * width + 2 * width * keys + 3 * width * real(c.feed_forward);
  return tokens * real(c.layers) * (2 * layer + 4 * real(ShapeBench::chunk) * width);
}

double decoder_operations(const Shape& shape, double rows, double logit_rows, bool crossed) {
  const model::DecoderConfig& c = shape.decoder;
  const double width = real(c.width), queries = real(c.heads * c.head_width), keys = real(c.groups * c.head_width);
  const double attention = 2 * width * queries, layer = attention + 2 * width * keys + 3 * width * real(c.feed_forward);
  return 2 * (rows * real(c.layers) * (layer + (crossed ? attention : 0)) + logit_rows * width * real(c.vocabulary));
}

double causal_operations(const Shape& shape, double rows) {
  return 2 * rows * rows * real(shape.decoder.layers * shape.decoder.heads * shape.decoder.head_width);
}

double cross_operations(const Shape& shape, double rows, double context) {
  const model::DecoderConfig& c = shape.decoder;
  const double queries = real(c.heads * c.head_width), keys = real(c.groups * c.head_width),
               width = real(shape.encoder.width);
  const double projected = 4 * context * keys * width + 4 * rows * context * queries;
  const double absorbed = 4 * rows * context * real(c.heads) * width;
  return real(c.layers) * std::min(projected, absorbed);
}

ShapeBench::ShapeBench(const BenchShapeOptions& its_options, c10::Device device,
                       std::optional<ops::PackedFormat> format)
    : options(its_options),
      shape(find_shape(options.shape)),
      values(at::TensorOptions(device).dtype(device.is_cpu() ? at::kFloat : at::kBFloat16)),
      cached(options.int8_cache ? values.dtype(at::kByte) : values),
      operations_a_second(product_rate(values)),
      bytes_a_second(memory_bandwidth(device)) {
  for (const int64_t length : base::parse_counts(options.contexts, "--contexts")) {
    if (length < chunk) {
      throw base::Error(base::ErrorCode::invalid_argument, "--contexts '" + options.contexts +
                                                               "': expected lengths of at least " +
                                                               std::to_string(chunk) + " tokens with --shape");
    }
    lengths.push_back(length / chunk * chunk);
  }
  longest = *std::max_element(lengths.begin(), lengths.end());
  std::vector<int64_t> layers(static_cast<size_t>(shape.decoder.layers));
  std::iota(layers.begin(), layers.end(), 0);
  model.decoder = model::random_decoder(shape.decoder, options.seed, values, format);
  model.adapter = model::random_adapter(shape.decoder, shape.encoder, layers, options.seed, values, format);
}

bool ShapeBench::wants(const std::string& part) const {
  return std::find(options.parts.begin(), options.parts.end(), part) != options.parts.end();
}

at::Tensor ShapeBench::tokens(int64_t count) const {
  return at::randint(std::min(shape.decoder.vocabulary, shape.encoder.vocabulary), {count}, values.dtype(at::kLong));
}

model::ContextStates ShapeBench::encode(const at::Tensor& ids) const {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& part : ids.reshape({-1, chunk}).split(chunks_at_once, 0))
    parts.push_back(model::forward(model.adapter->encoder, part).flatten(0, 1));
  model::ContextStates context;
  for (const at::Tensor& states : at::cat(parts).split(chunk, 0)) context.append(states);
  return context;
}

model::ContextStates ShapeBench::random_states(int64_t count) const {
  model::ContextStates context;
  const at::Tensor all = at::empty({count, shape.encoder.width}, values).normal_();
  for (const at::Tensor& states : all.split(chunk, 0))
    context.append(options.int8_states ? ops::int8_rows(states) : states);
  return context;
}

bool ShapeBench::keep_projections(model::ContextStates& context) const {
  const model::HeadShape heads = model::head_shape(shape.decoder);
  const auto needed = 2 * context.rows * heads.groups * heads.width * shape.decoder.layers *
                      static_cast<int64_t>(values.dtype().itemsize());
  ops::reset_peak_device_bytes(device());
  if (ops::available_bytes(device()) < needed / 10 * 11) {
    base::detail("bench: no room for K and V of " + std::to_string(context.rows) + " tokens");
    return false;
  }
  model::keep_projections(context, model::cross_attention_blocks(model), heads, values.dtype().toScalarType());
  return true;
}

void ShapeBench::add(const std::string& what, int64_t context, double seconds, double operations, double bytes,
                     int64_t sequences) {
  const double bound = std::max(operations / operations_a_second, bytes / bytes_a_second);
  Json row = {{"what", what},       {"context_tokens", context}, {"sequences", sequences},
              {"seconds", seconds}, {"bound_seconds", bound},    {"ratio", bound / seconds}};
  if (const auto peak = ops::peak_device_bytes(device())) row["peak_memory_bytes"] = *peak;
  rows.push_back(std::move(row));
  base::detail("bench: " + what + ", " + std::to_string(context) + " context tokens: " + std::to_string(seconds) +
               " s");
}

double ShapeBench::timed(const std::function<void(int64_t)>& work, int64_t runs) const {
  std::vector<double> seconds;
  for (int64_t run = 0; run <= (runs > 0 ? runs : options.runs); ++run) {
    base::throw_if_interrupted();
    if (run == 1) ops::reset_peak_device_bytes(device());
    const Clock clock(device());
    work(run);
    if (run > 0) seconds.push_back(clock.seconds());
  }
  return median(std::move(seconds));
}

}  // namespace cepe::cli
