// Products of few rows on a GPU against the same in float64.
#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>

#include <array>
#include <utility>
#include <vector>

#include "gpu.h"
#include "ops/cuda/loaded.h"
#include "ops/device.h"
#include "ops/head_product.h"
#include "ops/row_product.h"

namespace cepe::ops {
namespace {

class RowProductOnGpu : public test::OnGpu {
 protected:
  static at::Tensor random(at::IntArrayRef shape) { return at::randn(shape).to(device(), at::kBFloat16); }
  static void expect_product(const at::Tensor& x, const at::Tensor& weight) {
    synchronise(x.device());  // the weight is there
    const at::Tensor expected = at::linear(x.to(at::kCPU, at::kDouble), weight.to(at::kCPU, at::kDouble));
    const at::Tensor found = row_product(x, weight);
    ASSERT_EQ(found.sizes(), expected.sizes());
    ASSERT_EQ(found.scalar_type(), at::kBFloat16);
    const double distance =
        ((found.to(at::kCPU, at::kDouble) - expected).abs().max() / expected.abs().max()).item<double>();
    EXPECT_LE(distance, 4e-3) << x.sizes() << " " << weight.sizes();  // one rounding to bfloat16
  }
};

TEST_F(RowProductOnGpu, OfEveryNumberOfRowsAndOddSizes) {
  for (const int64_t rows : {1, 2, 3, 4}) {
    for (const auto& [inputs, outputs] : std::vector<std::pair<int64_t, int64_t>>{
             {8, 1}, {32, 16}, {64, 9}, {256, 100}, {264, 7}, {480, 48}, {2056, 33}, {4096, 1000}, {5992, 17}}) {
      const at::Tensor x = random({rows, inputs}), weight = random({outputs, inputs});
      const bool expected = cuda::kernels() && x.numel() <= cuda::most_row_product_values;
      EXPECT_EQ(takes_row_product(x, weight), expected);
      expect_product(x, weight);
    }
  }
  expect_product(random({1, 11008}), random({300, 11008}));
  expect_product(random({2, 1, 128}), random({40, 128}));
}

TEST_F(RowProductOnGpu, WhatTheKernelDoesNotTakeIsMultipliedAllTheSame) {
  EXPECT_FALSE(takes_row_product(random({5, 64}), random({10, 64})));
  EXPECT_FALSE(takes_row_product(random({1, 65}).narrow(1, 1, 64), random({10, 64})));
  EXPECT_FALSE(takes_row_product(random({1, 63}), random({10, 63})));
  expect_product(random({5, 64}), random({10, 64}));
  expect_product(random({1, 65}).narrow(1, 1, 64), random({10, 64}));
  expect_product(random({1, 63}), random({10, 63}));
  expect_product(random({1, 64}), random({64, 10}).t());
}

TEST_F(RowProductOnGpu, TheSameBitsEveryTimeAndWhateverTheOtherRowsAre) {
  const at::Tensor x = random({4, 2048}), weight = random({500, 2048});
  synchronise(device());
  const at::Tensor all = row_product(x, weight);
  EXPECT_TRUE(all.equal(row_product(x, weight)));
  if (!cuda::kernels()) GTEST_SKIP() << "no kernel on " << device();
  EXPECT_TRUE(all.narrow(0, 1, 2).equal(row_product(x.narrow(0, 1, 2), weight)));
  // One row is summed in another order, the same every time.
  const at::Tensor one = row_product(x.narrow(0, 2, 1), weight);
  EXPECT_TRUE(one.equal(row_product(x.narrow(0, 2, 1), weight)));
  expect_product(x.narrow(0, 2, 1), weight);
}

// Of each head with its group's matrix, and transposed: against the same in float64 on the CPU.
TEST_F(RowProductOnGpu, OfHeadsWithTheirGroupsMatrices) {
  for (const auto& [batch, heads, groups] :
       std::vector<std::array<int64_t, 3>>{{1, 4, 4}, {1, 9, 3}, {2, 4, 2}, {3, 2, 2}, {4, 32, 32}, {2, 9, 3}}) {
    for (const auto& [width, encoder] : std::vector<std::pair<int64_t, int64_t>>{{64, 576}, {128, 1024}, {96, 72}}) {
      SCOPED_TRACE(testing::Message() << batch << " " << heads << " " << groups << " " << width);
      const at::Tensor weight = random({groups * width, encoder}), narrow = random({batch, heads, width}),
                       wide = random({batch, heads, encoder});
      synchronise(device());
      const auto expect = [&](const at::Tensor& found, const at::Tensor& expected) {
        ASSERT_EQ(found.sizes(), expected.sizes());
        const at::Tensor off = (found.to(at::kCPU, at::kDouble) - expected).abs().max() / expected.abs().max();
        EXPECT_LE(off.item<double>(), 4e-3);
      };
      const auto exact = [](const at::Tensor& x) { return x.to(at::kCPU, at::kDouble); };
      expect(head_product(wide, weight, groups), head_product(exact(wide), exact(weight), groups));
      expect(transposed_head_product(narrow, weight, groups),
             transposed_head_product(exact(narrow), exact(weight), groups));
    }
  }
}

}  // namespace
}  // namespace cepe::ops
