#include "ops/chunked_loss.h"

#include "expect_error.h"
#include "loss_gradients.h"

namespace cepe::ops {
namespace {

class ChunkedLoss : public testing::Test {
 protected:
  void SetUp() override { at::manual_seed(31); }
};

TEST_F(ChunkedLoss, CrossEntropyAndItsGradientsAreThoseOfAllLogitsAtOnce) {
  test::expect_cross_entropy_gradients(at::kCPU);
}
TEST_F(ChunkedLoss, CrossEntropyWithoutLabelsIsZero) { test::expect_cross_entropy_without_labels_to_be_zero(at::kCPU); }
TEST_F(ChunkedLoss, RowsWithoutALabelMayHoldAnything) { test::expect_ignored_rows_not_to_matter(at::kCPU); }
TEST_F(ChunkedLoss, FrozenPartsGetNoGradient) { test::expect_frozen_parts_to_get_no_gradient(at::kCPU); }
TEST_F(ChunkedLoss, TheWeightMayBeOfAnotherType) { test::expect_weights_of_another_type(at::kCPU); }
TEST_F(ChunkedLoss, LabelsOutsideTheVocabularyAreRefused) { test::expect_labels_outside_to_be_noticed(at::kCPU); }
TEST_F(ChunkedLoss, AnyLossOfLogitsIsThatOfAllLogitsAtOnce) { test::expect_chunked_loss_gradients(at::kCPU); }
TEST_F(ChunkedLoss, AConstantLossHasZeroGradients) { test::expect_constant_losses_to_have_zero_gradients(at::kCPU); }

TEST_F(ChunkedLoss, TheMessageNamesTheLabelAndItsRow) {
  at::Tensor labels = at::arange(3, at::kLong);
  labels[2] = 30;
  test::expect_error(base::ErrorCode::invalid_argument, "label 30 in row 2", [&] {
    linear_cross_entropy(at::ones({3, 8}), at::ones({30, 8}), labels);
  });
}

TEST_F(ChunkedLoss, AChunkHoldsNoMoreThan256MiBOfLogits) {
  constexpr int64_t vocabulary = int64_t{1} << 19;  // 2 MiB a row
  std::vector<int64_t> chunks;
  const at::NoGradGuard none;
  chunked_loss(at::ones({200, 1}), at::ones({vocabulary, 1}), [&](const at::Tensor& logits, int64_t, int64_t rows) {
    chunks.push_back(rows);
    return logits[0][0];
  });
  EXPECT_EQ(chunks, (std::vector<int64_t>{128, 72}));
}

TEST_F(ChunkedLoss, WhatDoesNotFitIsRefused) {
  const at::Tensor hidden = at::ones({3, 8}), weight = at::ones({30, 8}), labels = at::arange(3, at::kLong);
  const auto expect_refused = [](const at::Tensor& h, const at::Tensor& w, const at::Tensor& l, int64_t chunk = 0) {
    EXPECT_THROW(linear_cross_entropy(h, w, l, 0, chunk), base::Error) << h.sizes() << w.sizes() << l.sizes();
  };
  expect_refused(hidden, at::ones({30, 7}), labels);
  expect_refused(hidden, at::ones({0, 8}), labels);
  expect_refused(hidden.unsqueeze(0), weight, labels);
  expect_refused(hidden.to(at::kDouble), weight, labels);
  expect_refused(hidden, weight, at::arange(2, at::kLong));
  expect_refused(hidden, weight, labels.to(at::kInt));
  expect_refused(hidden, weight, labels, -1);
  EXPECT_THROW(chunked_loss(hidden, weight, [](const at::Tensor& logits, int64_t, int64_t) { return logits; }),
               base::Error);
}

TEST_F(ChunkedLoss, SecondDerivativesAreRefused) {
  const at::Tensor hidden = at::randn({3, 8}).requires_grad_(true);
  const at::Tensor loss = linear_cross_entropy(hidden, at::randn({30, 8}), at::arange(3, at::kLong));
  EXPECT_THROW(torch::autograd::grad({loss}, {hidden}, {}, std::nullopt, true), base::Error);
}

}  // namespace
}  // namespace cepe::ops
