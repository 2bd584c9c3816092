#include "eval/replug.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logaddexp.h>

#include <algorithm>

#include "base/error.h"

namespace cepe::eval {

at::Tensor replug_log_probabilities(const model::Decoder& decoder, std::span<const at::Tensor> passages,
                                    const at::Tensor& scores, const at::Tensor& input, int64_t rows) {
  using base::Error;
  using base::ErrorCode;
  if (passages.empty() || scores.numel() != static_cast<int64_t>(passages.size())) {
    throw Error(ErrorCode::invalid_argument,
                "RePlug needs a score for each passage, and at least one: " + std::to_string(passages.size()) +
                    " passages, " + std::to_string(scores.numel()) + " scores");
  }
  const at::Tensor weights = at::log_softmax(scores.reshape({-1}).to(at::kFloat), 0);  // [N]
  at::Tensor total;                                                                    // [rows, V]
  for (size_t i = 0; i < passages.size(); ++i) {
    const at::Tensor ids = at::cat({passages[i], input}, 0);
    if (rows < 1 || rows > ids.size(0)) {
      throw Error(ErrorCode::invalid_argument, std::to_string(rows) + " rows of RePlug's " +
                                                   std::to_string(ids.size(0)) + " positions of passage " +
                                                   std::to_string(i));
    }
    const at::Tensor hidden = model::forward(decoder, model::single_layout(ids, 0), nullptr);
    const at::Tensor last = model::logits(decoder, hidden.narrow(0, ids.size(0) - rows, rows));
    const at::Tensor weighted = at::log_softmax(last, -1) + weights[static_cast<int64_t>(i)];
    total = total.defined() ? at::logaddexp(total, weighted) : weighted;
  }
  return total;
}

}  // namespace cepe::eval
