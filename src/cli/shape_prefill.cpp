// Rows of `cepe bench --shape` that read texts: encoding, forward passes, first tokens.
#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/measure.h"
#include "cli/shape_bench.h"
#include "engine/hot_contexts.h"
#include "model/batch_step.h"
#include "ops/device.h"

namespace cepe::cli {
namespace {

using model::ContextStates;

// Hidden rows of a text that begins here.
at::Tensor read(const ShapeBench& bench, const at::Tensor& ids, const ContextStates& context, model::KvCache* cache) {
  model::CrossAttentionInput cross;
  if (context.rows > 0) cross = {model::cross_attention_blocks(bench.model), {&context}};
  return model::forward(bench.model.decoder, model::single_layout(ids, 0), cache, cross);
}

at::Tensor first_token(const ShapeBench& bench, const at::Tensor& prompt, const ContextStates& context) {
  const model::DecoderConfig& config = bench.shape.decoder;
  model::KvCache kept = model::make_kv_cache(config.layers, prompt.size(0) + bench.options.tokens, config.groups,
                                             config.head_width, bench.cached);
  const at::Tensor hidden = read(bench, prompt, context, &kept);
  return at::argmax(model::logits(bench.model.decoder, hidden.narrow(0, hidden.size(0) - 1, 1)), -1);
}

constexpr int64_t recorded_after = 9;  // answers: then a size is recorded (model/batch_step.h)

// Prompts of at most `rows` tokens as an engine reads them: as rows of a step (model/batch_step.h), where that is
// taken.
class ShortPrompts {
 public:
  static constexpr int64_t rows = 64;  // a block of the cache

  explicit ShortPrompts(const ShapeBench& bench) : bench_(bench) {
    const model::DecoderConfig& config = bench.shape.decoder;
    cache_ = model::make_kv_cache(config.layers, 2 * rows, config.groups, config.head_width, bench.cached);
    if (model::BatchStep::takes(bench.model, cache_)) step_.emplace(bench.model, cache_, rows, rows);
  }

  void answer(const at::Tensor& prompt, const ContextStates& context) {
    const int64_t count = prompt.size(0);
    if (!step_ || !model::BatchStep::takes_together(bench_.model, context, count)) {
      first_token(bench_, prompt.to(bench_.device()), context).item();
      return;
    }
    std::vector<model::BatchStep::Row> asked;
    for (int64_t row = 0; row < count; ++row)
      asked.push_back({.position = row, .blocks = blocks_, .context = &context, .asks_logits = row + 1 == count});
    at::argmax(step_->logits(prompt, asked)).item();
  }

 private:
  const ShapeBench& bench_;
  const std::vector<int32_t> blocks_ = {0};
  model::KvCache cache_;
  std::optional<model::BatchStep> step_;
};

// One question after another, as an engine answers them: a context that has lost enough gets K and V (HotContexts), and
// the question that finds it so waits for them.
void measure_asked_again(ShapeBench& bench, const at::Tensor& prompt, const ContextStates& context, double operations) {
  constexpr int64_t questions = recorded_after + 5;
  engine::HotContexts hot(bench.model);
  ShortPrompts prompts(bench);
  const auto asked = std::make_shared<const ContextStates>(context);
  ops::reset_peak_device_bytes(bench.device());
  for (int64_t question = 1; question <= questions; ++question) {
    const Clock clock(bench.device());
    if (hot.due()) hot.keep(ops::available_bytes(bench.device()) / 5 * 2);
    const engine::ContextPointer& current = hot.current(asked);
    hot.count(current, prompt.size(0));
    prompts.answer(prompt, *current);
    bench.add("first token, question " + std::to_string(question) + " of 64 tokens", context.rows, clock.seconds(),
              operations, static_cast<double>(weight_bytes_a_token(bench.model, true, true)));
  }
}

// Over states, and over the K and V that a context may keep for all layers; each run at a length of its own.
void measure_short_prompt(ShapeBench& bench, int64_t length) {
  constexpr int64_t rows = ShortPrompts::rows;
  ContextStates context = bench.random_states(length);
  const at::Tensor prompt = bench.tokens(rows).to(at::kCPU);
  const model::HeadShape heads = model::head_shape(bench.shape.decoder);
  const double own = decoder_operations(bench.shape, rows, 1, true) + causal_operations(bench.shape, rows);
  const auto weights = static_cast<double>(weight_bytes_a_token(bench.model, true, true));
  ShortPrompts prompts(bench);
  const auto measure = [&](const std::string& what, double operations, double bytes) {
    const auto shorter = [&](int64_t run) { return prompt.narrow(0, 0, std::max(rows / 2, rows - run)); };
    for (int64_t i = 0; i < recorded_after; ++i) prompts.answer(prompt, context);
    const double seconds = bench.timed([&](int64_t run) { prompts.answer(shorter(run), context); });
    bench.add("first token, " + what + ", 64-token prompt", length, seconds, own + operations, weights + bytes);
  };
  measure("states on the device", cross_operations(bench.shape, rows, static_cast<double>(length)), 0);
  measure_asked_again(bench, prompt, context, own + cross_operations(bench.shape, rows, static_cast<double>(length)));
  if (!bench.keep_projections(context)) return;
  const int64_t columns = bench.shape.decoder.layers * heads.width * length;
  const auto products = static_cast<double>(4 * rows * columns * heads.heads);
  measure("K and V kept", products, static_cast<double>(4 * columns * heads.groups));
}

}  // namespace

void measure_encoding(ShapeBench& bench) {
  const at::Tensor ids = bench.tokens(bench.longest);
  const double seconds = bench.timed([&](int64_t) { bench.encode(ids); });
  bench.add("encode", bench.longest, seconds, encoder_operations(bench.shape, static_cast<double>(bench.longest)), 0);
}

void measure_forward(ShapeBench& bench) {
  const at::Tensor ids = bench.tokens(bench.options.decoder_tokens);
  const auto all = static_cast<double>(bench.options.decoder_tokens);
  for (const int64_t length : bench.lengths) {
    const at::Tensor context_ids = bench.tokens(length);
    const auto before = static_cast<double>(length);
    const double seconds = bench.timed(
        [&](int64_t) { model::logits(bench.model.decoder, read(bench, ids, bench.encode(context_ids), nullptr)); });
    bench.add("forward", length, seconds,
              encoder_operations(bench.shape, before) + decoder_operations(bench.shape, all, all, true) +
                  causal_operations(bench.shape, all) + cross_operations(bench.shape, all, before),
              0);
    if (!bench.options.full_attention) continue;
    const at::Tensor together = at::cat({context_ids, ids});
    const auto read_all = [&](int64_t) {
      const at::Tensor hidden = read(bench, together, {}, nullptr);
      model::logits(bench.model.decoder, hidden.narrow(0, length, ids.size(0)));
    };
    const double full = bench.timed(read_all, 1);  // seconds of work: one run says enough
    bench.add("forward, full attention", length, full,
              decoder_operations(bench.shape, all + before, all, false) + causal_operations(bench.shape, all + before),
              0);
  }
}

// Each run at a length of its own.
void measure_first_tokens(ShapeBench& bench) {
  const int64_t longest = bench.longest, chunk = ShapeBench::chunk;
  const at::Tensor ids = bench.tokens(longest), prompt = bench.tokens(bench.options.prompt_tokens);
  const auto rows = static_cast<double>(bench.options.prompt_tokens), before = static_cast<double>(longest);
  const double reading = decoder_operations(bench.shape, rows, 1, true) + causal_operations(bench.shape, rows) +
                         cross_operations(bench.shape, rows, before);
  const auto shorter = [&](int64_t run) { return std::max(chunk, longest - chunk * run); };
  const double fresh = bench.timed(
      [&](int64_t run) { first_token(bench, prompt, bench.encode(ids.narrow(0, 0, shorter(run)))).item(); });
  bench.add("first token", longest, fresh, encoder_operations(bench.shape, before) + reading, 0);

  const ContextStates context = bench.encode(ids);
  const double stored = bench.timed([&](int64_t run) {
    ContextStates some;
    for (int64_t i = 0; i < shorter(run) / chunk; ++i) some.append(context.pages[static_cast<size_t>(i)]);
    first_token(bench, prompt, some).item();
  });
  bench.add("first token, states on the device", longest, stored, reading, 0);
  if (bench.device().is_cuda()) {
    const at::Tensor host = at::cat(context.pages).to(at::kCPU).pin_memory();
    const double fetched = bench.timed([&](int64_t run) {
      ContextStates some;
      for (const at::Tensor& page : host.narrow(0, 0, shorter(run)).to(bench.device(), true).split(chunk, 0))
        some.append(page);
      first_token(bench, prompt, some).item();
    });
    bench.add("first token, states in host memory", longest, fetched, reading, 0);
  }
  measure_short_prompt(bench, std::min<int64_t>(longest, 16384));
}

}  // namespace cepe::cli
