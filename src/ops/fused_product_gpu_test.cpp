// Products with something after them on a GPU, against the two operations one after the other in float64, and against
// themselves.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>

#include <array>
#include <memory>
#include <vector>

#include "gpu.h"
#include "ops/activation.h"
#include "ops/cuda/loaded.h"
#include "ops/device.h"
#include "ops/device_graph.h"
#include "ops/fused_product.h"
#include "ops/rotary.h"

namespace cepe::ops {
namespace {

class FusedProductOnGpu : public test::OnGpu {
 protected:
  static at::Tensor random(at::IntArrayRef shape) {
    return at::randn(shape, at::TensorOptions(device()).dtype(at::kBFloat16));
  }
  static at::Tensor small(at::IntArrayRef shape) { return random(shape) / 16; }  // weights: sums of about one
  static void expect_near(const at::Tensor& found, const at::Tensor& expected) {
    ASSERT_EQ(found.sizes(), expected.sizes());
    ASSERT_EQ(found.scalar_type(), at::kBFloat16);
    const at::Tensor distance = (found.to(at::kDouble) - expected).abs(), most = expected.abs().max();
    EXPECT_LE((distance.max() / most).item<double>(), 1e-2) << found.sizes();  // a few roundings to bfloat16
    EXPECT_LE((distance.mean() / expected.abs().mean()).item<double>(), 5e-3) << found.sizes();
  }
  static at::Tensor gated_in_float64(Activation activation, const at::Tensor& x, const at::Tensor& weight) {
    return gated(activation, at::linear(x.to(at::kDouble), weight.to(at::kDouble)));
  }
};

// Whole tiles, and rows, columns and inputs that end within one; few tiles and many.
TEST_F(FusedProductOnGpu, Gated) {
  for (const auto& [rows, inputs, width] : std::vector<std::array<int64_t, 3>>{{16384, 1024, 4096},
                                                                               {12345, 1024, 2048},
                                                                               {8192, 576, 2736},
                                                                               {20000, 40, 1000},
                                                                               {300, 264, 65544},
                                                                               {4096, 4096, 11008}}) {
    const at::Tensor x = random({rows, inputs}), weight = small({2 * width, inputs});
    for (const Activation activation : {Activation::silu, Activation::gelu_tanh, Activation::relu})
      expect_near(gated_product(activation, x, weight), gated_in_float64(activation, x, weight));
  }
}

TEST_F(FusedProductOnGpu, Rotated) {
  for (const auto& [rows, inputs, all, heads, width] :
       std::vector<std::array<int64_t, 5>>{{16384, 1024, 48, 32, 64},
                                           {12345, 1024, 48, 31, 64},
                                           {4096, 4096, 96, 64, 128},
                                           {12345, 520, 23, 23, 128},
                                           {40000, 576, 15, 12, 64},
                                           {9000, 256, 64, 48, 96}}) {  // not of that width
    const at::Tensor x = random({rows, inputs}), weight = small({all * width, inputs});
    const at::Tensor angles = at::rand({rows, width / 2}, at::TensorOptions(device())) * 6;
    const at::Tensor cos = angles.cos(), sin = angles.sin();
    const RotatedHeads found = rotated_product(x, weight, cos, sin, heads, width);
    const at::Tensor expected = at::linear(x.to(at::kDouble), weight.to(at::kDouble)).view({rows, all, width});
    expect_near(found.rotated, rotate(expected.narrow(1, 0, heads), cos, sin));
    if (all > heads) expect_near(found.others, expected.narrow(1, heads, all - heads));
  }
}

// The table's own functions: that it is the one kernel, not the composition.
TEST_F(FusedProductOnGpu, IsOneKernel) {
  if (!cuda::kernels()) GTEST_SKIP() << "no kernels for this GPU";
  const at::Tensor x = random({9000, 1024}), weight = small({4096, 1024}), y = at::empty({9000, 2048}, x.options());
  y.fill_(7);
  const cuda::FusedProductRun run{.x = x.const_data_ptr(),
                                  .weight = weight.const_data_ptr(),
                                  .y = y.mutable_data_ptr(),
                                  .rows = 9000,
                                  .inputs = 1024,
                                  .outputs = 4096,
                                  .device = device().index()};
  ASSERT_TRUE(cuda::kernels()->gated_product({run, Activation::silu}));
  expect_near(y, gated_in_float64(Activation::silu, x, weight));
  EXPECT_TRUE(y.equal(gated_product(Activation::silu, x, weight)));
  EXPECT_FALSE(cuda::kernels()->gated_product({run, Activation::relu}));
}

// A row does not depend on the others, nor on the way of the tiles.
TEST_F(FusedProductOnGpu, ARowAloneHasTheSameBits) {
  const at::Tensor x = random({16384, 1024}), weight = small({8192, 1024});
  const at::Tensor all = gated_product(Activation::silu, x, weight);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(all.equal(gated_product(Activation::silu, x, weight)));
  const at::Tensor some = gated_product(Activation::silu, x.narrow(0, 77, 4096), weight);
  EXPECT_TRUE(some.equal(all.narrow(0, 77, 4096)));
}

TEST_F(FusedProductOnGpu, InARecording) {
  const at::Tensor x = random({8192, 1024}), weight = small({8192, 1024});
  at::Tensor y;
  const std::unique_ptr<DeviceGraph> graph =
      DeviceGraph::record(device(), [&] { y = gated_product(Activation::silu, x, weight); });
  y.zero_();
  graph->replay();
  expect_near(y, gated_in_float64(Activation::silu, x, weight));
}

// Not aligned to 16 bytes, and not contiguous.
TEST_F(FusedProductOnGpu, OfWhatTheKernelDoesNotTake) {
  const at::Tensor weight = small({8192, 1024});
  constexpr int64_t count = int64_t{8192} * 1024;
  const at::Tensor unaligned = random({count + 4}).narrow(0, 4, count).view({8192, 1024});
  expect_near(gated_product(Activation::silu, unaligned, weight),
              gated_in_float64(Activation::silu, unaligned, weight));
  const at::Tensor strided = random({8192, 1032}).narrow(1, 8, 1024);
  expect_near(gated_product(Activation::silu, strided, weight), gated_in_float64(Activation::silu, strided, weight));
}

}  // namespace
}  // namespace cepe::ops
