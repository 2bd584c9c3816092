// Graphs: what a recorded piece of work gives when its inputs change.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>

#include <stdexcept>

#include "gpu.h"
#include "ops/device_graph.h"

namespace cepe::ops {
namespace {

class DeviceGraphOnGpu : public test::OnGpu {
 protected:
  static at::Tensor square(double value) {
    return at::full({256, 256}, value, at::TensorOptions(device()).dtype(at::kFloat));
  }
};

TEST_F(DeviceGraphOnGpu, ReadsItsInputsAnewEachTime) {
  const at::Tensor input = square(1), output = square(0);
  const auto work = [&] { output.copy_(at::matmul(input, input)); };
  const auto graph = DeviceGraph::record(device(), work);
  if (!graph) GTEST_SKIP() << "no graphs on " << device();
  for (const double value : {2.0, 3.0}) {
    input.fill_(value);
    graph->replay();
    EXPECT_EQ(output.max().item<double>(), 256 * value * value);
  }
}

TEST_F(DeviceGraphOnGpu, WorkThatFailsWhileRecordedLeavesTheDeviceUsable) {
  int calls = 0;
  const at::Tensor input = square(1);
  const auto fails_when_recorded = [&] {
    at::matmul(input, input);
    if (++calls == 2) throw std::runtime_error("planted");
  };
  try {
    if (!DeviceGraph::record(device(), fails_when_recorded)) GTEST_SKIP() << "no graphs on " << device();
    FAIL() << "the error is lost";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "planted");
  }
  EXPECT_EQ(at::matmul(input, input).max().item<double>(), 256);
}

}  // namespace
}  // namespace cepe::ops
