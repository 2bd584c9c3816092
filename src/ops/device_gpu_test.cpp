// Waiting for a GPU, and the peak of its memory.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>

#include <chrono>

#include "gpu.h"
#include "ops/device.h"

namespace cepe::ops {
namespace {

class DeviceOnGpu : public test::OnGpu {
 protected:
  static at::Tensor ones(int64_t rows) { return at::ones({rows, rows}, at::TensorOptions(device()).dtype(at::kFloat)); }

  static double seconds_of(const auto& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
};

TEST_F(DeviceOnGpu, SaysWhatItsCapabilityIs) {
  EXPECT_GE(compute_capability(device()), 50);
  EXPECT_LT(compute_capability(device()), 200);
}

TEST_F(DeviceOnGpu, PeakMemoryRemembersATensorThatIsGone) {
  const int64_t more_than_before = peak_device_bytes(device()).value() + (int64_t{256} << 20);
  at::empty({more_than_before}, at::TensorOptions(device()).dtype(at::kByte));
  EXPECT_GE(peak_device_bytes(device()).value(), more_than_before);
}

// Ten float32 products of 2 x 8192^3 multiplications and additions each: more than 0.05 s on any GPU there is, and a
// few microseconds to ask for.
TEST_F(DeviceOnGpu, SynchroniseWaitsForWhatWasAskedFor) {
  const at::Tensor x = ones(8192);
  at::Tensor y = at::matmul(x, x);
  synchronise(device());
  const double asking = seconds_of([&] {
    for (int i = 0; i < 10; ++i) at::matmul_out(y, x, x);
  });
  const double waiting = seconds_of([&] { synchronise(device()); });
  EXPECT_GT(waiting, asking);
  EXPECT_GT(waiting, 0.02);
  EXPECT_EQ(y[0][0].item<float>(), 8192);
}

}  // namespace
}  // namespace cepe::ops
