// The bodies of chunked_loss_test.cpp on a GPU.
#include "gpu.h"
#include "loss_gradients.h"
#include "ops/cuda/loaded.h"

namespace cepe::ops {
namespace {

class ChunkedLossOnGpu : public test::OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (test::gpu().device) at::manual_seed(31);
  }
};

TEST_F(ChunkedLossOnGpu, CrossEntropyAndItsGradientsAreThoseOfAllLogitsAtOnce) {
  test::expect_cross_entropy_gradients(device());
}
TEST_F(ChunkedLossOnGpu, CrossEntropyWithoutLabelsIsZero) {
  test::expect_cross_entropy_without_labels_to_be_zero(device());
}
TEST_F(ChunkedLossOnGpu, RowsWithoutALabelMayHoldAnything) { test::expect_ignored_rows_not_to_matter(device()); }
TEST_F(ChunkedLossOnGpu, FrozenPartsGetNoGradient) { test::expect_frozen_parts_to_get_no_gradient(device()); }
TEST_F(ChunkedLossOnGpu, TheWeightMayBeOfAnotherType) { test::expect_weights_of_another_type(device()); }
TEST_F(ChunkedLossOnGpu, LabelsOutsideTheVocabularyAreNoticed) { test::expect_labels_outside_to_be_noticed(device()); }
TEST_F(ChunkedLossOnGpu, AnyLossOfLogitsIsThatOfAllLogitsAtOnce) { test::expect_chunked_loss_gradients(device()); }
TEST_F(ChunkedLossOnGpu, AConstantLossHasZeroGradients) {
  test::expect_constant_losses_to_have_zero_gradients(device());
}

}  // namespace
}  // namespace cepe::ops
