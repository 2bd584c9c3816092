// The bodies of quantise_test.cpp on a GPU.
#include "gpu.h"
#include "quantised_models.h"

namespace cepe::model {
namespace {

class QuantisedOnGpu : public test::OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (test::gpu().device) at::manual_seed(51);
  }
};

TEST_F(QuantisedOnGpu, ModelsStayNearDenseOnes) { test::expect_quantised_models_near_dense_ones(device()); }
TEST_F(QuantisedOnGpu, RecordedStepsGiveWhatPlainOnesGive) {
  test::expect_recorded_steps_of_quantised_models_as_plain_ones(device());
}

}  // namespace
}  // namespace cepe::model
