// Products of many rows on a GPU against the same in float64.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>

#include <array>
#include <memory>
#include <vector>

#include "gpu.h"
#include "ops/device.h"
#include "ops/device_graph.h"
#include "ops/tuned_product.h"

namespace cepe::ops {
namespace {

class TunedProductOnGpu : public test::OnGpu {
 protected:
  static at::Tensor random(at::IntArrayRef shape) {
    return at::randn(shape, at::TensorOptions(device()).dtype(at::kBFloat16));
  }
  static void expect_product(const at::Tensor& found, const at::Tensor& x, const at::Tensor& weight) {
    const at::Tensor expected = at::linear(x.to(at::kDouble), weight.to(at::kDouble));
    ASSERT_EQ(found.sizes(), expected.sizes());
    ASSERT_EQ(found.scalar_type(), at::kBFloat16);
    const double distance = ((found.to(at::kDouble) - expected).abs().max() / expected.abs().max()).item<double>();
    EXPECT_LE(distance, 4e-3) << x.sizes() << " " << weight.sizes();  // one rounding to bfloat16
  }
};

TEST_F(TunedProductOnGpu, OfSizesWithAChoiceAndWithout) {
  for (const auto& [rows, inputs, outputs] : std::vector<std::array<int64_t, 3>>{{5, 4096, 8192},
                                                                                 {64, 11008, 4096},
                                                                                 {64, 512, 256},
                                                                                 {100, 8192, 4096},
                                                                                 {1024, 4096, 4096},
                                                                                 {1025, 4096, 4096},
                                                                                 {8192, 1024, 4096},
                                                                                 {8449, 1024, 4104},
                                                                                 {33000, 264, 1024}}) {
    const at::Tensor x = random({rows, inputs}), weight = random({outputs, inputs});
    expect_product(tuned_product(x, weight), x, weight);
    const at::Tensor y = at::empty({rows, outputs}, x.options());
    tuned_product_into(y, x, weight);
    expect_product(y, x, weight);
  }
}

TEST_F(TunedProductOnGpu, OfWhatTheLibraryTakesForGrantedAndOfTheRest) {
  const at::Tensor weight = random({4096, 4096});
  const at::Tensor x = random({2, 1024, 4096}), odd = random({2048, 4104}), shifted = odd.narrow(1, 8, 4096);
  expect_product(tuned_product(x, weight), x, weight);
  expect_product(tuned_product(shifted, weight), shifted, weight);
  constexpr int64_t count = int64_t{2048} * 4096;
  const at::Tensor unaligned = random({count + 8}).narrow(0, 8, count).view({2048, 4096});
  expect_product(tuned_product(unaligned, weight), unaligned, weight);
}

TEST_F(TunedProductOnGpu, TheSameBitsEveryTime) {
  const at::Tensor x = random({2048, 4096}), weight = random({4096, 4096});
  const at::Tensor first = tuned_product(x, weight);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(first.equal(tuned_product(x, weight)));
}

TEST_F(TunedProductOnGpu, InARecording) {
  const at::Tensor x = random({48, 8192}), weight = random({8192, 8192}), y = at::empty({48, 8192}, x.options());
  const std::unique_ptr<DeviceGraph> graph = DeviceGraph::record(device(), [&] { tuned_product_into(y, x, weight); });
  y.zero_();
  graph->replay();
  expect_product(y, x, weight);
}

}  // namespace
}  // namespace cepe::ops
