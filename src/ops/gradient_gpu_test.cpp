// The bodies of gradient_test.cpp on a GPU.
#include "gpu.h"
#include "ops_gradients.h"

namespace cepe::ops {
namespace {

class GradientsOnGpu : public test::OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (test::gpu().device) at::manual_seed(21);
  }
};

TEST_F(GradientsOnGpu, OfRmsNormAreThoseOfItsComposition) { test::expect_rms_norm_gradients(device()); }
TEST_F(GradientsOnGpu, OfRmsNormDoNotDependOnWhatElseIsWanted) { test::expect_rms_norm_gradients_one_by_one(device()); }
TEST_F(GradientsOnGpu, OfARotationAreThoseOfItsComposition) { test::expect_rotation_gradients(device()); }
TEST_F(GradientsOnGpu, OfARotationTakeSlicesAndAnyGradient) { test::expect_rotation_gradients_of_slices(device()); }
TEST_F(GradientsOnGpu, OfGatedSiluAreThoseOfItsComposition) { test::expect_gated_silu_gradients(device()); }
TEST_F(GradientsOnGpu, OfGatedSiluHoldAtTheEndsOfTheRange) {
  test::expect_gated_silu_gradients_at_the_ends_of_the_range(device());
}
TEST_F(GradientsOnGpu, OfNothingAreNothing) { test::expect_gradients_of_nothing(device()); }
TEST_F(GradientsOnGpu, OfGradientsAreRefusedOrRight) { test::expect_second_derivatives_refused_or_right(device()); }
TEST_F(GradientsOnGpu, AreNotPreparedWhereNoneIsWanted) { test::expect_plain_results_without_gradients(device()); }

}  // namespace
}  // namespace cepe::ops
