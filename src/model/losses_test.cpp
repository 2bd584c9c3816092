// The distillation loss against sums worked out in float64 from its formula.
#include "model/losses.h"

#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "expect_error.h"

namespace cepe::model {
namespace {

// One sequence of 3 tokens: Td = 1, the last position, whose student says 0.5, 0.3, 0.2.
at::Tensor student_logits() {
  const double a = std::log(0.5), b = std::log(0.3), c = std::log(0.2);
  return at::tensor({9.0, 0.0, 0.0, 0.0, 7.0, 0.0, a, b, c}).to(at::kFloat).reshape({1, 3, 3});
}
at::Tensor teacher() { return at::tensor({0.6, 0.4}).to(at::kFloat).reshape({1, 1, 2}); }
at::Tensor teacher_index() { return at::tensor({int64_t{1}}).reshape({1, 1, 1}); }

TEST(Distillation, DropLeavesTheOthersOutAndRenormalisesNothing) {
  const double expected = 0.6 * std::log(0.6 / 0.3);
  EXPECT_NEAR(distillation_loss(student_logits(), teacher(), teacher_index(), distillation_mode("drop")).item<double>(),
              expected, 1e-6);
}

TEST(Distillation, SmoothingRenormalisesBothVectors) {
  for (const double x : {0.0, 0.1, 0.5}) {
    const auto smooth = [&](double value) { return (value + x) / (1 + 2 * x); };
    const double expected =
        smooth(0.6) * std::log(smooth(0.6) / smooth(0.3)) + smooth(0.4) * std::log(smooth(0.4) / smooth(0.7));
    const DistillationMode mode = {DistillationMode::Kind::smooth, x};
    EXPECT_NEAR(distillation_loss(student_logits(), teacher(), teacher_index(), mode).item<double>(), expected, 1e-6)
        << x;
  }
}

TEST(Distillation, ATeachersOthersALittleBelowZeroCountAsZero) {
  const at::Tensor rounded = at::tensor({1.0, -1e-4}).to(at::kFloat).reshape({1, 1, 2});
  for (const double x : {0.0, 1e-6}) {
    const DistillationMode mode = {DistillationMode::Kind::smooth, x};
    EXPECT_NEAR(distillation_loss(student_logits(), rounded, teacher_index(), mode).item<double>(), -std::log(0.3),
                1e-4);
  }
}

TEST(LanguageModelling, LabelsAreShiftedByOneAndMinusHundredCountsNowhere) {
  const at::Tensor labels = at::tensor({int64_t{-100}, int64_t{-100}, int64_t{1}}).reshape({1, 3});
  // Only logits[1] = (0, 7, 0) against label 1 counts.
  const double expected = std::log(std::exp(7.0) + 2) - 7;
  EXPECT_NEAR(language_modelling_loss(student_logits(), labels).item<double>(), expected, 1e-6);
}

TEST(Distillation, ModesAreNamed) {
  EXPECT_DOUBLE_EQ(distillation_mode("smooth_1e-6").smoothing, 1e-6);
  test::expect_error(base::ErrorCode::invalid_argument, "smooth_2", [] { distillation_mode("smooth_2"); });
}

}  // namespace
}  // namespace cepe::model
