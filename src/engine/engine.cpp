#include "engine/engine.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "model/cost_model.h"

namespace cepe::engine {
namespace {

using base::Error;
using base::ErrorCode;

// Rows whose logits [rows, V] stand in memory at one time when text is scored.
constexpr int64_t logit_rows = 256;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

at::Tensor token_tensor(std::span<const text::Token> ids, at::Device device) {
  return at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).to(device);
}

// On the host, before anything reaches a device: there an id out of range would end the process.
void check_ids(std::span<const text::Token> ids, int64_t vocabulary) {
  for (const text::Token id : ids) {
    if (id >= 0 && id < vocabulary) continue;
    throw Error(ErrorCode::invalid_argument, "token id " + std::to_string(id) +
                                                 " is outside the model's vocabulary of " + std::to_string(vocabulary));
  }
}

// Finds the stop strings in text that arrives in pieces, holding back what may be the beginning of one.
class StopStrings {
 public:
  explicit StopStrings(const std::vector<std::string>& stops) : stops_(stops) {}

  // The text that is now certain; `stopped` becomes true at the first stop string, which is left out.
  std::string put(const std::string& piece) {
    held_ += piece;
    size_t first = std::string::npos;
    for (const std::string& stop : stops_) {
      if (!stop.empty()) first = std::min(first, held_.find(stop));
    }
    if (first != std::string::npos) {
      stopped = true;
      held_.resize(first);
      return finish();
    }
    size_t keep = 0;
    for (const std::string& stop : stops_) keep = std::max(keep, overlap(stop));
    std::string certain = held_.substr(0, held_.size() - keep);
    held_.erase(0, certain.size());
    return certain;
  }
  std::string finish() { return std::exchange(held_, {}); }
  bool stopped = false;

 private:
  // Length of the longest end of the held text that begins `stop`.
  size_t overlap(const std::string& stop) const {
    for (size_t length = std::min(held_.size(), stop.empty() ? 0 : stop.size() - 1); length > 0; --length) {
      if (held_.compare(held_.size() - length, length, stop, 0, length) == 0) return length;
    }
    return 0;
  }
  std::vector<std::string> stops_;
  std::string held_;
};

}  // namespace

std::string_view name_of(Finish finish) {
  switch (finish) {
    case Finish::stop:
      return "stop";
    case Finish::length:
      return "length";
    case Finish::window:
      return "window";
    default:
      return "cancelled";
  }
}

Engine::Engine(const model::CepeModel& model, const text::Tokenizer& tokenizer, EngineOptions options)
    : model_(&model), tokenizer_(&tokenizer), options_(options) {}

void Engine::set_context(model::ContextStates context) {
  const at::NoGradGuard none;
  context_ = std::move(context);
  if (context_.rows == 0) return;
  if (!model_->adapter)
    throw Error(ErrorCode::invalid_argument,
                "a context needs an adapter: the model alone has no encoder; give one with --adapter");
  const model::DecoderConfig& config = model_->decoder.config;
  const std::vector<const model::CrossAttention*> blocks = model::cross_attention_blocks(*model_);
  const int64_t layers =
      std::count_if(blocks.begin(), blocks.end(), [](const auto* block) { return block != nullptr; });
  const bool exact =
      model_->decoder.activation_type == at::kFloat && context_.pages.front().scalar_type() == at::kFloat;
  const model::CrossAttentionCost cost = {
      1, context_.rows, config.heads, config.groups, config.head_width, context_.pages.front().size(1), false};
  const bool cpu = model_->decoder.device().is_cpu();
  const int64_t budget = options_.kept_bytes >= 0 ? options_.kept_bytes : base::available_bytes() / 5 * 2;
  const bool wanted = options_.path == model::CrossAttentionPath::kept ||
                      (options_.path == model::CrossAttentionPath::automatic &&
                       model::worth_keeping(cost, layers, exact ? 4 : 2, budget, cpu));
  if (wanted) model::keep_projections(context_, blocks, model::head_shape(config), exact ? at::kFloat : at::kBFloat16);
}

model::CrossAttentionInput Engine::cross() const {
  if (context_.rows == 0) return {};
  return {model::cross_attention_blocks(*model_), {&context_}, options_.path};
}

model::KvCache Engine::make_cache(int64_t slots) const {
  const model::Decoder& decoder = model_->decoder;
  // float32 weights mean exactness is wanted; otherwise the cache is bfloat16, half the bytes to read a token.
  const bool exact = decoder.layers.front().attention.output.weight.defined() &&
                     decoder.layers.front().attention.output.weight.scalar_type() == at::kFloat;
  const at::TensorOptions options =
      at::TensorOptions().dtype(exact ? at::kFloat : at::kBFloat16).device(decoder.device());
  return model::make_kv_cache(decoder.config.layers, slots, decoder.config.groups, decoder.config.head_width, options);
}

at::Tensor Engine::prefill(std::span<const text::Token> ids, model::KvCache& cache) const {
  const model::CrossAttentionInput input = cross();
  at::Tensor hidden;
  for (size_t first = 0; first < ids.size(); first += static_cast<size_t>(options_.prefill_rows)) {
    base::throw_if_interrupted();
    const auto piece = ids.subspan(first, std::min(ids.size() - first, static_cast<size_t>(options_.prefill_rows)));
    const model::BatchLayout layout =
        model::single_layout(token_tensor(piece, model_->decoder.device()), static_cast<int64_t>(first));
    hidden = model::forward(model_->decoder, layout, &cache, input);
  }
  return hidden.narrow(0, hidden.size(0) - 1, 1);
}

Completion Engine::generate(const Request& request) const {
  const at::NoGradGuard none;
  const auto start = std::chrono::steady_clock::now();
  const int64_t window = model_->decoder.config.max_positions;
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt == 0) throw Error(ErrorCode::invalid_argument, "the prompt is empty: there is nothing to continue");
  if (prompt > window) {
    throw Error(ErrorCode::invalid_argument, "the prompt has " + std::to_string(prompt) +
                                                 " tokens; the decoder reads at most " + std::to_string(window));
  }
  check_ids(request.prompt, model_->decoder.config.vocabulary);
  Sampler sampler(request.sampling);
  StopStrings stops(request.stop);
  text::StreamDecoder decoder(*tokenizer_);
  Completion completion;
  if (request.max_tokens <= 0) return completion;
  model::KvCache cache = make_cache(std::min(window, prompt + request.max_tokens));
  at::Tensor hidden = prefill(request.prompt, cache);
  int64_t cached = prompt;
  std::chrono::steady_clock::time_point first_token;
  for (;;) {
    base::throw_if_interrupted();
    const at::Tensor values = model::logits(model_->decoder, hidden).squeeze(0);
    Step step;
    step.token = sampler.sample(values, request.prompt, completion.tokens);
    if (completion.tokens.empty()) {
      completion.prefill_seconds = seconds_since(start);
      first_token = std::chrono::steady_clock::now();
    }
    const bool ends =
        std::find(request.end_tokens.begin(), request.end_tokens.end(), step.token) != request.end_tokens.end();
    completion.tokens.push_back(step.token);
    if (request.log_probabilities >= 0) {
      step.log_probabilities = top_log_probabilities(values, step.token, request.log_probabilities);
      completion.log_probabilities.push_back(step.log_probabilities);
    }
    if (!ends) step.text = stops.put(decoder.put(step.token));
    const bool last = ends || stops.stopped || static_cast<int64_t>(completion.tokens.size()) >= request.max_tokens ||
                      cached >= window;
    if (last && !stops.stopped) {
      step.text += stops.put(decoder.finish());
      step.text += stops.finish();
    }
    completion.text += step.text;
    const bool goes_on = !request.on_step || request.on_step(step);
    if (ends || stops.stopped)
      completion.finish = Finish::stop;
    else if (last)
      completion.finish =
          static_cast<int64_t>(completion.tokens.size()) >= request.max_tokens ? Finish::length : Finish::window;
    else if (!goes_on)
      completion.finish = Finish::cancelled;
    if (last || !goes_on) break;
    const model::BatchLayout layout =
        model::single_layout(token_tensor({&step.token, 1}, model_->decoder.device()), cached++);
    hidden = model::forward(model_->decoder, layout, &cache, cross());
  }
  completion.decode_seconds = seconds_since(first_token);
  return completion;
}

at::Tensor Engine::score(std::span<const text::Token> ids, int64_t first) const {
  const at::NoGradGuard none;
  const auto length = static_cast<int64_t>(ids.size());
  if (length < 2 || first < 0 || first > length - 2)
    throw Error(ErrorCode::invalid_argument,
                "nothing to score: " + std::to_string(length) + " tokens from " + std::to_string(first));
  if (length > model_->decoder.config.max_positions && !options_.scores_beyond_positions) {
    throw Error(ErrorCode::invalid_argument, std::to_string(length) + " tokens to score; the decoder reads at most " +
                                                 std::to_string(model_->decoder.config.max_positions));
  }
  check_ids(ids, model_->decoder.config.vocabulary);
  const at::Device device = model_->decoder.device();
  const model::CrossAttentionInput input = cross();
  model::KvCache cache = make_cache(length);
  std::vector<at::Tensor> scores;
  for (int64_t row = 0; row < length - 1; row += options_.prefill_rows) {
    base::throw_if_interrupted();
    const int64_t count = std::min(options_.prefill_rows, length - 1 - row);
    const auto piece = ids.subspan(static_cast<size_t>(row), static_cast<size_t>(count));
    const at::Tensor hidden =
        model::forward(model_->decoder, model::single_layout(token_tensor(piece, device), row), &cache, input);
    for (int64_t done = std::max<int64_t>(0, first - row); done < count; done += logit_rows) {
      const int64_t some = std::min(logit_rows, count - done);
      const at::Tensor values = model::logits(model_->decoder, hidden.narrow(0, done, some));
      const at::Tensor targets =
          token_tensor(ids.subspan(static_cast<size_t>(row + done + 1), static_cast<size_t>(some)), device);
      scores.push_back(at::log_softmax(values, -1).gather(1, targets.unsqueeze(1)).squeeze(1).to(at::kCPU));
    }
  }
  return at::cat(scores, 0);
}

}  // namespace cepe::engine
