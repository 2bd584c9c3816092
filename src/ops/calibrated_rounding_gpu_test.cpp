// The bodies of calibrated_rounding_test.cpp on a GPU.
#include "gpu.h"
#include "rounding_cases.h"

namespace cepe::ops {
namespace {

class CalibratedRoundingOnGpu : public test::OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (test::gpu().device) at::manual_seed(43);
  }
};

TEST_F(CalibratedRoundingOnGpu, CholeskyFactorsGiveTheMatrixBack) { test::expect_factors_of_matrices(device()); }
TEST_F(CalibratedRoundingOnGpu, CostsLessThanRoundingToTheNearest) {
  test::expect_less_cost_than_the_nearest(device());
}
TEST_F(CalibratedRoundingOnGpu, IsGptqsRecursion) { test::expect_gptqs_recursion(device()); }
TEST_F(CalibratedRoundingOnGpu, ScalesAreTheBestOfABinade) { test::expect_scales_within_a_binade(device()); }
TEST_F(CalibratedRoundingOnGpu, WithoutCorrelationIsRoundingToTheNearest) {
  test::expect_nearest_without_correlation(device());
}
TEST_F(CalibratedRoundingOnGpu, InputsNeverSeenAreRoundedToTheNearest) {
  test::expect_nearest_of_unseen_inputs(device());
}
TEST_F(CalibratedRoundingOnGpu, FewerInputsThanColumnsAreEnough) { test::expect_singular_moments_taken(device()); }
TEST_F(CalibratedRoundingOnGpu, EveryCallGivesTheSame) { test::expect_the_same_at_every_call(device()); }

}  // namespace
}  // namespace cepe::ops
