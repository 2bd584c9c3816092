// Scoring a text: one sequence, a cache of its own.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "base/error.h"
#include "base/interrupt.h"
#include "engine/engine.h"
#include "engine/plain_error.h"
#include "engine/token_ids.h"
#include "ops/shared_cores.h"

namespace cepe::engine {
namespace {

using base::Error;
using base::ErrorCode;

// Rows whose logits [rows, V] stand in memory at one time.
constexpr int64_t logit_rows = 256;

}  // namespace

at::Tensor token_tensor(std::span<const text::Token> ids, at::Device device) {
  return at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).to(device);
}

void check_ids(std::span<const text::Token> ids, int64_t vocabulary) {
  for (const text::Token id : ids) {
    if (id >= 0 && id < vocabulary) continue;
    throw Error(ErrorCode::invalid_argument, "token id " + std::to_string(id) +
                                                 " is outside the model's vocabulary of " + std::to_string(vocabulary));
  }
}

at::Tensor Engine::score(std::span<const text::Token> ids, int64_t first) const {
  const at::NoGradGuard none;
  const auto outside = outside_steps();
  const auto length = static_cast<int64_t>(ids.size());
  if (length < 2 || first < 0 || first > length - 2)
    throw Error(ErrorCode::invalid_argument,
                "nothing to score: " + std::to_string(length) + " tokens from " + std::to_string(first));
  if (length > model_->decoder.config.max_positions && !options_.scores_beyond_positions) {
    throw Error(ErrorCode::invalid_argument, std::to_string(length) + " tokens to score; the decoder reads at most " +
                                                 std::to_string(model_->decoder.config.max_positions));
  }
  check_ids(ids, model_->decoder.config.vocabulary);
  return plainly([&] { return scores_of(ids, first); });
}

at::Tensor Engine::scores_of(std::span<const text::Token> ids, int64_t first) const {
  const auto length = static_cast<int64_t>(ids.size());
  const at::Device device = model_->decoder.device();
  const model::CrossAttentionInput input = cross({context_.get()});
  model::KvCache cache = make_cache(length);
  std::vector<at::Tensor> scores;
  for (int64_t row = 0; row < length - 1; row += options_.prefill_rows) {
    base::throw_if_interrupted();
    const ops::WorkOfAllThreads work;
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
