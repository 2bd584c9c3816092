// Rows of `cepe bench --shape` that decode: one sequence at each length of context, and many together.
#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "base/interrupt.h"
#include "cli/measure.h"
#include "cli/shape_bench.h"
#include "model/batch_step.h"
#include "ops/device.h"
#include "ops/int8_rows.h"

namespace cepe::cli {
namespace {

using model::ContextStates;

constexpr int64_t block_rows = 64;

void set_random(at::Tensor& cache) {
  if (ops::is_int8_rows(cache)) {
    const at::Tensor row = at::randn({1, cache.size(1), ops::row_width(cache)}, cache.options().dtype(at::kFloat));
    cache.copy_(ops::int8_rows(row).expand_as(cache));
  } else {
    cache.normal_();
  }
}

// Sequences that have `cached` rows in the decoder's cache and go on from there, all at once.
class Decoding {
 public:
  Decoding(const ShapeBench& bench, int64_t sequences, int64_t cached, std::vector<const ContextStates*> contexts)
      : bench_(bench), cached_(cached), contexts_(std::move(contexts)) {
    const model::DecoderConfig& config = bench.shape.decoder;
    const int64_t each = (cached + bench.options.tokens + block_rows) / block_rows;
    cache_ = model::make_kv_cache(config.layers, (sequences * each + 1) * block_rows, config.groups, config.head_width,
                                  bench.cached);
    for (auto* tensors : {&cache_.keys, &cache_.values})
      for (at::Tensor& tensor : *tensors) set_random(tensor);
    if (!model::BatchStep::takes(bench.model, cache_))
      throw base::Error(base::ErrorCode::unsupported, "bench --shape: no kernels for these widths here");
    for (int64_t i = 0; i < sequences; ++i) {
      blocks_.emplace_back(static_cast<size_t>(each));
      std::iota(blocks_.back().begin(), blocks_.back().end(), static_cast<int32_t>(i * each));
    }
    step_.emplace(bench.model, cache_, block_rows, sequences * each * block_rows);
  }

  // Median of a step's seconds, each until its tokens are read back, as an engine does; some that do not count before.
  double seconds() {
    constexpr int64_t uncounted = 4;
    at::Tensor tokens = bench_.tokens(static_cast<int64_t>(blocks_.size())).to(at::kCPU);
    std::vector<double> found;
    for (int64_t i = 0; i < bench_.options.tokens; ++i) {
      base::throw_if_interrupted();
      std::vector<model::BatchStep::Row> rows;
      for (size_t s = 0; s < blocks_.size(); ++s) rows.push_back({cached_ + i, blocks_[s], contexts_[s]});
      const Clock clock(bench_.device());
      tokens = at::argmax(step_->logits(tokens, rows), -1).to(at::kCPU);
      if (i >= std::min(uncounted, bench_.options.tokens - 1)) found.push_back(clock.seconds());
    }
    return median(std::move(found));
  }

 private:
  const ShapeBench& bench_;
  int64_t cached_;
  std::vector<const ContextStates*> contexts_;
  model::KvCache cache_;
  std::vector<std::vector<int32_t>> blocks_;
  std::optional<model::BatchStep> step_;
};

double cache_bytes(const ShapeBench& bench, int64_t rows) {
  const model::DecoderConfig& config = bench.shape.decoder;
  return static_cast<double>(rows * model::cache_slot_bytes(config.layers, config.groups, config.head_width,
                                                            c10::typeMetaToScalarType(bench.cached.dtype())));
}

// Operations a step over contexts: 4 * rows * M * H * E absorbed, D for E where K and V are kept.
double context_operations(const ShapeBench& bench, double rows, const ContextStates& context) {
  const model::DecoderConfig& config = bench.shape.decoder;
  const int64_t width = context.kept.empty() ? bench.shape.encoder.width : config.head_width;
  return 4 * rows * static_cast<double>(context.rows * config.heads * width * config.layers);
}

void measure_batch(ShapeBench& bench, const std::string& what, const std::vector<ContextStates>& contexts) {
  const int64_t sequences = bench.options.sequences, rows = bench.options.row_tokens;
  std::vector<const ContextStates*> theirs;
  for (int64_t i = 0; i < sequences; ++i) theirs.push_back(&contexts[static_cast<size_t>(i) % contexts.size()]);
  ops::reset_peak_device_bytes(bench.device());
  const double seconds = Decoding(bench, sequences, rows, theirs).seconds();
  const auto count = static_cast<double>(sequences);
  double bytes = static_cast<double>(weight_bytes_a_token(bench.model, true, contexts.front().kept.empty())) +
                 cache_bytes(bench, sequences * rows);
  for (const ContextStates& context : contexts)
    bytes += static_cast<double>(context_bytes_a_token(bench.model, context));
  bench.add(what, bench.longest, seconds,
            decoder_operations(bench.shape, count, count, true) + context_operations(bench, count, contexts.front()),
            bytes, sequences);
}

}  // namespace

void measure_steps(ShapeBench& bench) {
  const int64_t cached = bench.options.prompt_tokens;
  for (const int64_t length : bench.lengths) {
    const ContextStates context = bench.random_states(length);
    ops::reset_peak_device_bytes(bench.device());
    const double seconds = Decoding(bench, 1, cached, {&context}).seconds();
    bench.add(bench.options.int8_states ? "a token, absorbed, states in 8 bits" : "a token, absorbed", length, seconds,
              decoder_operations(bench.shape, 1, 1, true) + context_operations(bench, 1, context),
              static_cast<double>(weight_bytes_a_token(bench.model, true, true) +
                                  context_bytes_a_token(bench.model, context)) +
                  cache_bytes(bench, cached));
  }
  if (!bench.options.full_attention) return;
  ops::reset_peak_device_bytes(bench.device());
  const double full = Decoding(bench, 1, bench.longest + cached, {nullptr}).seconds();
  bench.add("a token, full attention", bench.longest, full, decoder_operations(bench.shape, 1, 1, false),
            static_cast<double>(weight_bytes_a_token(bench.model, false, false)) +
                cache_bytes(bench, bench.longest + cached));
}

void measure_batches(ShapeBench& bench) {
  const std::string many = std::to_string(bench.options.sequences) + " sequences, ";
  std::vector<ContextStates> contexts;
  for (int64_t i = 0; i < bench.options.sequences; ++i) contexts.push_back(bench.random_states(bench.longest));
  measure_batch(bench, many + "a context each, absorbed", contexts);
  contexts.resize(1);
  measure_batch(bench, many + "one context, absorbed", contexts);
  if (bench.keep_projections(contexts.front())) measure_batch(bench, many + "one context, kept K and V", contexts);
}

}  // namespace cepe::cli
