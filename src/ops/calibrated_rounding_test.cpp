#include "ops/calibrated_rounding.h"

#include <cmath>

#include "ops/input_moments.h"
#include "ops/triangular.h"
#include "rounding_cases.h"

namespace cepe::ops {
namespace {

class CalibratedRounding : public testing::Test {
 protected:
  void SetUp() override { at::manual_seed(43); }
};

TEST_F(CalibratedRounding, CholeskyFactorsGiveTheMatrixBack) { test::expect_factors_of_matrices(at::kCPU); }
TEST_F(CalibratedRounding, CostsLessThanRoundingToTheNearest) { test::expect_less_cost_than_the_nearest(at::kCPU); }
TEST_F(CalibratedRounding, IsGptqsRecursion) { test::expect_gptqs_recursion(at::kCPU); }
TEST_F(CalibratedRounding, ScalesAreTheBestOfABinade) { test::expect_scales_within_a_binade(at::kCPU); }
TEST_F(CalibratedRounding, WithoutCorrelationIsRoundingToTheNearest) {
  test::expect_nearest_without_correlation(at::kCPU);
}
TEST_F(CalibratedRounding, InputsNeverSeenAreRoundedToTheNearest) { test::expect_nearest_of_unseen_inputs(at::kCPU); }
TEST_F(CalibratedRounding, FewerInputsThanColumnsAreEnough) { test::expect_singular_moments_taken(at::kCPU); }
TEST_F(CalibratedRounding, EveryCallGivesTheSame) { test::expect_the_same_at_every_call(at::kCPU); }

TEST_F(CalibratedRounding, WhatDoesNotFitIsRefused) {
  const at::Tensor weight = at::randn({4, 6});
  EXPECT_THROW(quantise_calibrated(weight, at::eye(5)), base::Error);
  EXPECT_THROW(quantise_calibrated(weight[0], at::eye(6)), base::Error);
  EXPECT_THROW(quantise_calibrated(weight, at::full({6, 6}, NAN)), base::Error);
  EXPECT_THROW(cholesky(at::eye(3)), base::Error);  // float32
  EXPECT_THROW(cholesky(-at::eye(3).to(at::kDouble)), base::Error);
}

TEST_F(CalibratedRounding, MomentsAddUpOverCalls) {
  const at::Tensor x = at::randn({3, 5, 8});
  InputMoments moments;
  for (int64_t i = 0; i < 3; ++i) add_inputs(moments, x[i].to(at::kBFloat16));
  const at::Tensor rows = x.to(at::kBFloat16).to(at::kFloat).reshape({-1, 8});
  EXPECT_EQ(moments.rows, 15);
  EXPECT_LT(test::packed_distance(moments.sums, rows.t().matmul(rows)), 1e-6);
}

}  // namespace
}  // namespace cepe::ops
