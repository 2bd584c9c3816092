#include "eval/replug.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "expect_error.h"
#include "golden_tensors.h"
#include "tiny_models.h"

namespace cepe::eval {
namespace {

using test::distance;

struct Replug : testing::Test {
  const at::NoGradGuard none;
  const model::Decoder decoder = test::tiny_decoder(11);
  test::TinyWeights random{12};
  const at::Tensor input = random.tokens({5}, 96);
  const std::vector<at::Tensor> passages = {random.tokens({8}, 96), random.tokens({8}, 96), random.tokens({3}, 96)};

  at::Tensor alone(const at::Tensor& passage) const {  // probabilities of the input's rows [5, V]
    const at::Tensor hidden = model::forward(decoder, model::single_layout(at::cat({passage, input}, 0), 0), nullptr);
    return at::softmax(model::logits(decoder, hidden.narrow(0, passage.size(0), 5)), -1);
  }
};

TEST_F(Replug, AveragesTheDistributionsOfTheRowsByScore) {
  const at::Tensor scores = at::tensor({0.3, -1.2, 0.9}).to(at::kFloat), weights = at::softmax(scores, 0);
  const at::Tensor expected =
      weights[0] * alone(passages[0]) + weights[1] * alone(passages[1]) + weights[2] * alone(passages[2]);
  EXPECT_LE(distance(replug_log_probabilities(decoder, passages, scores, input, 5), expected.log()), 1e-5);
}

TEST_F(Replug, OnePassageIsThePlainDecoder) {
  const at::Tensor found =
      replug_log_probabilities(decoder, std::span(passages).first(1), at::tensor({-4.0}), input, 5);
  EXPECT_LE(distance(found, alone(passages[0]).log()), 1e-5);
}

TEST_F(Replug, IsADistributionAtEveryRowItIsAskedFor) {
  const at::Tensor found =
      replug_log_probabilities(decoder, passages, at::tensor({5.0, 1.0, -60.0}).to(at::kFloat), input, 8);
  EXPECT_EQ(found.sizes(), (std::vector<int64_t>{8, 96}));
  EXPECT_LE((found.exp().sum(-1) - 1).abs().max().item<double>(), 1e-5);
}

TEST_F(Replug, RefusesWhatDoesNotFit) {
  const at::Tensor scores = at::tensor({1.0, 2.0});
  test::expect_error(base::ErrorCode::invalid_argument, "3 passages, 2 scores",
                     [&] { replug_log_probabilities(decoder, passages, scores, input, 5); });
  test::expect_error(base::ErrorCode::invalid_argument, "0 passages",
                     [&] { replug_log_probabilities(decoder, {}, scores, input, 5); });
  test::expect_error(base::ErrorCode::invalid_argument, "9 rows", [&] {
    replug_log_probabilities(decoder, passages, at::tensor({1.0, 2.0, 3.0}), input, 9);
  });
}

}  // namespace
}  // namespace cepe::eval
