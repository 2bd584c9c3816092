#include "cli/bench_shape.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/parse_values.h"
#include "cli/runtime.h"
#include "model/cepe_model.h"
#include "model/initialise_random.h"
#include "model/quantise.h"
#include "model/recorded_step.h"
#include "ops/device.h"

namespace cepe::cli {
namespace {

using base::Json;
using model::ContextStates;

constexpr int64_t chunk = 256;
constexpr int64_t chunks_at_once = 64;  // in one pass of the encoder

struct Shape {
  const char* name;
  model::DecoderConfig decoder;
  model::EncoderConfig encoder;
};

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

Shape find_shape(const std::string& name) {
  for (Shape& shape : shapes())
    if (shape.name == name) return shape;
  throw base::Error(base::ErrorCode::invalid_argument, "--shape '" + name + "': known are " + shape_names());
}

class Clock {
 public:
  explicit Clock(at::Device device) : device_(device) { ops::synchronise(device_); }
  double seconds() {
    ops::synchronise(device_);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  at::Device device_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// What the machine can do, measured: operations a second of a large product, bytes a second of copies.
struct Rates {
  double operations = 0, bytes = 0;
};

Rates measure_rates(at::TensorOptions options) {
  const at::Device device = options.device();
  const int64_t side = device.is_cpu() ? 1024 : 8192;
  // Random numbers: a product of ones takes less power, and a GPU then runs faster than it ever does at work.
  const auto random = [&] { return at::empty({side, side}, options).normal_(); };
  const at::Tensor square = random(), other = random();
  at::Tensor product = at::empty_like(square);
  const at::Tensor table = at::ones({int64_t{device.is_cpu() ? 32 : 512} << 20}, options);
  at::Tensor copy = at::empty_like(table);
  Rates best;
  for (int pass = 0; pass < 8; ++pass) {
    Clock multiplying(device);
    at::matmul_out(product, square, other);
    const auto edge = static_cast<double>(side);
    best.operations = std::max(best.operations, 2 * edge * edge * edge / multiplying.seconds());
    Clock copying(device);
    copy.copy_(table);
    best.bytes = std::max(best.bytes, 2 * static_cast<double>(table.nbytes()) / copying.seconds());
  }
  return best;
}

class Bench {
 public:
  Bench(const BenchShapeOptions& options, at::Device device, std::optional<ops::PackedFormat> format)
      : options_(options),
        shape_(find_shape(options.shape)),
        values_(at::TensorOptions(device).dtype(device.is_cpu() ? at::kFloat : at::kBFloat16)),
        rates_(measure_rates(values_)) {
    std::vector<int64_t> layers(static_cast<size_t>(shape_.decoder.layers));
    std::iota(layers.begin(), layers.end(), 0);
    model_.decoder = model::random_decoder(shape_.decoder, options.seed, values_, format);
    model_.adapter = model::random_adapter(shape_.decoder, shape_.encoder, layers, options.seed, values_, format);
  }

  Json run() {
    for (const int64_t length : base::parse_counts(options_.contexts, "--contexts"))
      lengths_.push_back(length / chunk * chunk);
    const int64_t longest = *std::max_element(lengths_.begin(), lengths_.end());
    if (longest < chunk)
      throw base::Error(base::ErrorCode::invalid_argument, "--contexts: " + std::to_string(chunk) + " tokens at least");
    encode(tokens(chunks_at_once * chunk));  // loads kernels
    measure_encoder(longest);
    for (const int64_t length : lengths_) measure_forward(length);
    measure_first_tokens(longest);
    measure_decoding(longest);
    return {{"shape", shape_.name},
            {"device", device().str()},
            {"tflops", rates_.operations / 1e12},
            {"memory_bandwidth_bytes_per_second", rates_.bytes},
            {"rows", rows_}};
  }

 private:
  at::Device device() const { return values_.device(); }

  at::Tensor tokens(int64_t count) const {
    return at::randint(std::min(shape_.decoder.vocabulary, shape_.encoder.vocabulary), {count},
                       values_.dtype(at::kLong));
  }

  ContextStates encode(const at::Tensor& ids) const {
    ContextStates context;
    for (const at::Tensor& part : ids.reshape({-1, chunk}).split(chunks_at_once, 0))
      for (const at::Tensor& states : model::forward(model_.adapter->encoder, part).unbind(0)) context.append(states);
    return context;
  }

  model::CrossAttentionInput input(const ContextStates& context, model::CrossAttentionPath path) const {
    return {model::cross_attention_blocks(model_), {&context}, path};
  }
  // Hidden rows of a text that begins here.
  at::Tensor read(const at::Tensor& ids, const ContextStates& context, model::KvCache* cache) const {
    const auto cross =
        context.rows > 0 ? input(context, model::CrossAttentionPath::automatic) : model::CrossAttentionInput{};
    return model::forward(model_.decoder, model::single_layout(ids, 0), cache, cross);
  }
  model::KvCache cache(int64_t slots) const {
    return model::make_kv_cache(shape_.decoder.layers, slots, shape_.decoder.groups, shape_.decoder.head_width,
                                values_);
  }

  // Operations of `count` tokens; attention itself aside.
  double encoder_operations(double count) const {
    const model::EncoderConfig& c = shape_.encoder;
    const double width = static_cast<double>(c.width), keys = static_cast<double>(c.groups * c.head_width);
    const double layer = 2 * width * width + 2 * width * keys + 3 * width * static_cast<double>(c.feed_forward);
    return count * static_cast<double>(c.layers) * (2 * layer + 4 * static_cast<double>(chunk) * width);
  }
  double decoder_operations(double count, double logit_rows, bool crossed) const {
    const model::DecoderConfig& c = shape_.decoder;
    const double width = static_cast<double>(c.width), queries = static_cast<double>(c.heads * c.head_width),
                 keys = static_cast<double>(c.groups * c.head_width);
    const double attention = 2 * width * queries,
                 layer = attention + 2 * width * keys + 3 * width * static_cast<double>(c.feed_forward);
    return 2 * (count * static_cast<double>(c.layers) * (layer + (crossed ? attention : 0)) +
                logit_rows * width * static_cast<double>(c.vocabulary));
  }
  double causal_operations(double count) const {  // T rows that see themselves and those before
    return 2 * count * count *
           static_cast<double>(shape_.decoder.layers * shape_.decoder.heads * shape_.decoder.head_width);
  }
  // Per layer the cheaper of projecting K and V and of absorbing.
  double cross_operations(double rows, double context) const {
    const model::DecoderConfig& c = shape_.decoder;
    const double queries = static_cast<double>(c.heads * c.head_width),
                 keys = static_cast<double>(c.groups * c.head_width), width = static_cast<double>(shape_.encoder.width);
    const double projected = 4 * context * keys * width + 4 * rows * context * queries;
    const double absorbed = 4 * rows * context * static_cast<double>(c.heads) * width;
    return static_cast<double>(c.layers) * std::min(projected, absorbed);
  }
  double weight_bytes() const {  // that a decoded token reads
    double bytes = static_cast<double>(model::weight_bytes(model_.decoder) - model_.decoder.embedding.bytes());
    for (const auto& block : model_.adapter->cross_attention)
      bytes +=
          static_cast<double>(block->query.bytes() + block->key.bytes() + block->value.bytes() + block->output.bytes());
    return bytes;
  }

  void add(const std::string& what, int64_t context, double seconds, double operations, double bytes) {
    const double bound = std::max(operations / rates_.operations, bytes / rates_.bytes);
    Json row = {{"what", what},
                {"context_tokens", context},
                {"seconds", seconds},
                {"bound_seconds", bound},
                {"ratio", bound / seconds}};
    if (const auto peak = ops::peak_device_bytes(device())) row["peak_memory_bytes"] = *peak;
    rows_.push_back(std::move(row));
    base::detail("bench: " + what + ", " + std::to_string(context) + " context tokens: " + std::to_string(seconds) +
                 " s");
  }

  // Median of the runs after one that does not count; `work` is told the number of the run.
  double timed(const std::function<void(int64_t)>& work) const { return timed(work, options_.runs); }
  double timed(const std::function<void(int64_t)>& work, int64_t runs) const {
    std::vector<double> seconds;
    for (int64_t run = 0; run <= runs; ++run) {
      base::throw_if_interrupted();
      if (run == 1) ops::reset_peak_device_bytes(device());
      Clock clock(device());
      work(run);
      if (run > 0) seconds.push_back(clock.seconds());
    }
    return median(std::move(seconds));
  }

  void measure_encoder(int64_t length) {
    const at::Tensor ids = tokens(length);
    const double seconds = timed([&](int64_t) { encode(ids); });
    add("encode", length, seconds, encoder_operations(static_cast<double>(length)), 0);
  }

  void measure_forward(int64_t length) {
    const at::Tensor context_ids = tokens(length), ids = tokens(options_.decoder_tokens);
    const auto all = static_cast<double>(options_.decoder_tokens), before = static_cast<double>(length);
    const double seconds =
        timed([&](int64_t) { model::logits(model_.decoder, read(ids, encode(context_ids), nullptr)); });
    add("forward", length, seconds,
        encoder_operations(before) + decoder_operations(all, all, true) + causal_operations(all) +
            cross_operations(all, before),
        0);
    if (!options_.full_attention) return;
    const at::Tensor together = at::cat({context_ids, ids});
    const auto read_all = [&](int64_t) {
      const at::Tensor hidden = read(together, {}, nullptr);
      model::logits(model_.decoder, hidden.narrow(0, length, options_.decoder_tokens));
    };
    const double full = timed(read_all, 1);  // seconds of work: one run says enough
    add("forward, full attention", length, full,
        decoder_operations(all + before, all, false) + causal_operations(all + before), 0);
  }

  at::Tensor first_token(const at::Tensor& prompt, const ContextStates& context) const {
    model::KvCache kept = cache(prompt.size(0) + options_.tokens);
    const at::Tensor hidden = read(prompt, context, &kept);
    return at::argmax(model::logits(model_.decoder, hidden.narrow(0, hidden.size(0) - 1, 1)), -1);
  }

  // Each run at a length of its own.
  void measure_first_tokens(int64_t longest) {
    const at::Tensor ids = tokens(longest), prompt = tokens(options_.prompt_tokens);
    const auto rows = static_cast<double>(options_.prompt_tokens), before = static_cast<double>(longest);
    const double reading = decoder_operations(rows, 1, true) + causal_operations(rows) + cross_operations(rows, before);
    const auto shorter = [&](int64_t run) { return std::max(chunk, longest - chunk * run); };
    add("first token", longest,
        timed([&](int64_t run) { first_token(prompt, encode(ids.narrow(0, 0, shorter(run)))).item(); }),
        encoder_operations(before) + reading, 0);
    const ContextStates context = encode(ids);
    const auto part = [&](const ContextStates& whole, int64_t run) {
      ContextStates some;
      for (int64_t i = 0; i < shorter(run) / chunk; ++i) some.append(whole.pages[static_cast<size_t>(i)]);
      return some;
    };
    add("first token, states on the device", longest,
        timed([&](int64_t run) { first_token(prompt, part(context, run)).item(); }), reading, 0);
    if (device().is_cuda()) {
      const at::Tensor host = at::cat(context.pages).to(at::kCPU).pin_memory();
      add("first token, states in host memory", longest, timed([&](int64_t run) {
            ContextStates fetched;
            for (const at::Tensor& page : host.narrow(0, 0, shorter(run)).to(device(), true).split(chunk, 0))
              fetched.append(page);
            first_token(prompt, fetched).item();
          }),
          reading, 0);
    }
    measure_short_prompt(std::min<int64_t>(longest, 16384), ids);
  }

  void measure_short_prompt(int64_t length, const at::Tensor& ids) {
    constexpr int64_t rows = 64;
    const ContextStates context = encode(ids.narrow(0, 0, length));
    const at::Tensor prompt = tokens(rows);
    add("first token, states on the device, 64-token prompt", length,
        timed([&](int64_t) { first_token(prompt, context).item(); }),
        decoder_operations(rows, 1, true) + causal_operations(rows) +
            cross_operations(rows, static_cast<double>(length)),
        weight_bytes());
  }

  double decoding(const ContextStates& context, model::CrossAttentionPath path, int64_t cached) const {
    model::KvCache kept = cache(cached + options_.tokens);
    at::Tensor token = tokens(1);
    std::optional<model::RecordedStep> recorded;
    if (path != model::CrossAttentionPath::projected && model::RecordedStep::takes(model_, kept, &context))
      recorded.emplace(model_, kept, &context);
    const auto cross = context.rows > 0 ? input(context, path) : model::CrossAttentionInput{};
    int64_t place = cached;
    const auto step = [&] {
      if (recorded) {
        token = at::argmax(recorded->logits(token, place++), -1);
        return;
      }
      const at::Tensor hidden = model::forward(model_.decoder, model::single_layout(token, place++), &kept, cross);
      token = at::argmax(model::logits(model_.decoder, hidden), -1);
    };
    constexpr int64_t uncounted = 4;
    for (int64_t i = 0; i < uncounted; ++i) step();
    Clock clock(device());
    for (int64_t i = uncounted; i < options_.tokens; ++i) step();
    return clock.seconds() / static_cast<double>(options_.tokens - uncounted);
  }

  void measure_decoding(int64_t longest) {
    const ContextStates context = encode(tokens(longest));
    const double states =
        static_cast<double>(longest * shape_.encoder.width * values_.dtype().itemsize() * shape_.decoder.layers);
    using Path = model::CrossAttentionPath;
    for (const auto& [path, name] :
         {std::pair{Path::absorbed, "a token, absorbed"}, std::pair{Path::projected, "a token, projected"}}) {
      ops::reset_peak_device_bytes(device());
      add(name, longest, decoding(context, path, options_.prompt_tokens), decoder_operations(1, 1, true),
          weight_bytes() + states);
    }
    if (!options_.full_attention) return;
    ops::reset_peak_device_bytes(device());
    const double keys = static_cast<double>(2 * longest * shape_.decoder.groups * shape_.decoder.head_width *
                                            values_.dtype().itemsize() * shape_.decoder.layers);
    add("a token, full attention", longest, decoding({}, Path::automatic, longest), decoder_operations(1, 1, false),
        weight_bytes() + keys);
  }

  BenchShapeOptions options_;
  Shape shape_;
  at::TensorOptions values_;
  Rates rates_;
  model::CepeModel model_;
  std::vector<int64_t> lengths_;
  Json rows_ = Json::array();
};

}  // namespace

std::string shape_names() {
  std::string names;
  for (const Shape& shape : shapes()) names += (names.empty() ? "" : ", ") + std::string(shape.name);
  return names;
}

Json measure_shape(const BenchShapeOptions& options, const CommonOptions& common) {
  const at::NoGradGuard none;
  const auto format = model::quantised_format(weight_type(common.dtype));
  return Bench(options, ops::open_device(common.device), format).run();
}

std::string shape_text(const Json& result) {
  char line[200];
  std::snprintf(line, sizeof line, "%s on %s: products %.0f TFLOP/s, copies %.0f GB/s\n%-52s %9s %10s %10s %7s %10s\n",
                result.at("shape").get<std::string>().c_str(), result.at("device").get<std::string>().c_str(),
                result.at("tflops").get<double>(), result.at("memory_bandwidth_bytes_per_second").get<double>() / 1e9,
                "what", "context", "seconds", "bound", "ratio", "GPU memory");
  std::string text = line;
  for (const Json& row : result.at("rows")) {
    const std::string peak =
        row.contains("peak_memory_bytes") ? base::human_bytes(row.at("peak_memory_bytes").get<int64_t>()) : "-";
    std::snprintf(line, sizeof line, "%-52s %9lld %10.5f %10.5f %7.3f %10s\n",
                  row.at("what").get<std::string>().c_str(),
                  static_cast<long long>(row.at("context_tokens").get<int64_t>()), row.at("seconds").get<double>(),
                  row.at("bound_seconds").get<double>(), row.at("ratio").get<double>(), peak.c_str());
    text += line;
  }
  return text;
}

}  // namespace cepe::cli
