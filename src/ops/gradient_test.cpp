// The fused gradients on the CPU, at every level of its kernels, against autograd in float64.
#include "ops/cpu/kernels.h"
#include "ops_gradients.h"

namespace cepe::ops {
namespace {

class Gradients : public testing::Test {
 protected:
  void SetUp() override { at::manual_seed(21); }
  void TearDown() override { cpu::choose_level(before_); }
  template <class Body>
  void at_every_level(const Body& body) {
    for (const cpu::Level level : {cpu::Level::portable, cpu::Level::avx2, cpu::Level::avx512}) {
      if (!cpu::choose_level(level)) continue;
      SCOPED_TRACE("level " + std::to_string(static_cast<int>(level)));
      body(at::Device(at::kCPU));
    }
  }

 private:
  cpu::Level before_ = cpu::level();
};

TEST_F(Gradients, OfRmsNormAreThoseOfItsComposition) { at_every_level(test::expect_rms_norm_gradients); }
TEST_F(Gradients, OfRmsNormDoNotDependOnWhatElseIsWanted) {
  at_every_level(test::expect_rms_norm_gradients_one_by_one);
}
TEST_F(Gradients, OfARotationAreThoseOfItsComposition) { at_every_level(test::expect_rotation_gradients); }
TEST_F(Gradients, OfARotationTakeSlicesAndAnyGradient) { at_every_level(test::expect_rotation_gradients_of_slices); }
TEST_F(Gradients, OfGatedSiluAreThoseOfItsComposition) { at_every_level(test::expect_gated_silu_gradients); }
TEST_F(Gradients, OfGatedSiluHoldAtTheEndsOfTheRange) {
  at_every_level(test::expect_gated_silu_gradients_at_the_ends_of_the_range);
}
TEST_F(Gradients, OfNothingAreNothing) { test::expect_gradients_of_nothing(at::kCPU); }
TEST_F(Gradients, OfGradientsAreRefusedOrRight) { test::expect_second_derivatives_refused_or_right(at::kCPU); }
TEST_F(Gradients, AreNotPreparedWhereNoneIsWanted) { test::expect_plain_results_without_gradients(at::kCPU); }

}  // namespace
}  // namespace cepe::ops
