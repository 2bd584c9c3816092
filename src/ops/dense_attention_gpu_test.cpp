// The kernel against the composition in float32 on the CPU, of the same bfloat16 numbers.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/randn.h>

#include <cmath>
#include <vector>

#include "gpu.h"
#include "ops/cuda/loaded.h"
#include "ops/dense_attention.h"

namespace cepe::ops {
namespace {

struct Sizes {
  int64_t rows, heads, groups, keys, width;
};

struct Inputs {
  at::Tensor queries, keys, values;
};

class DenseAttentionOnGpu : public test::OnGpu {
 protected:
  void SetUp() override {
    test::OnGpu::SetUp();
    if (!IsSkipped() &&
        (!cuda::kernels() || !device().is_cuda() || cuda::kernels()->dense_attention_units(128, device().index()) == 0))
      GTEST_SKIP() << "no such kernel for this device";
  }
  static at::Tensor random(at::IntArrayRef shape) { return at::randn(shape).to(at::kBFloat16); }
  static Inputs inputs_of(const Sizes& sizes) {
    return {random({sizes.rows, sizes.heads, sizes.width}), random({sizes.keys, sizes.groups, sizes.width}),
            random({sizes.keys, sizes.groups, sizes.width})};
  }
  static Inputs there(const Inputs& inputs) {
    return {inputs.queries.to(device()), inputs.keys.to(device()), inputs.values.to(device())};
  }
  static PartialAttention attend(const Inputs& inputs, double scale) {
    return dense_attention(inputs.queries, inputs.keys, inputs.values, scale).value();
  }
  static void expect_near(const PartialAttention& found, const PartialAttention& expected) {
    ASSERT_EQ(found.output.sizes(), expected.output.sizes());
    const at::Tensor off = (found.output.cpu().to(at::kFloat) - expected.output).abs();
    // Probabilities and outputs are rounded to bfloat16.
    EXPECT_LE((off.max() / expected.output.abs().max()).item<float>(), 1e-2);
    EXPECT_LE((off.mean() / expected.output.abs().mean()).item<float>(), 4e-3);
    EXPECT_LE((found.log_sum_exp.cpu() - expected.log_sum_exp).abs().max().item<float>(), 2e-3);
  }
  static void expect_kernel_as_composition(const Inputs& inputs, double scale) {
    expect_near(attend(there(inputs), scale), composed_attention(inputs.queries, inputs.keys, inputs.values, scale));
  }
};

// One key and many, lengths that end within a tile, one head a group and several, few units (whose keys are shared out)
// and more than the GPU takes at one time.
TEST_F(DenseAttentionOnGpu, EveryShape) {
  for (const Sizes& sizes : std::vector<Sizes>{{129, 2, 2, 1, 64},
                                               {150, 1, 1, 127, 128},
                                               {130, 4, 2, 1000, 128},
                                               {256, 2, 1, 128, 64},
                                               {257, 3, 3, 129, 128},
                                               {300, 9, 3, 2053, 64},
                                               {700, 4, 1, 4099, 128},
                                               {1024, 32, 32, 777, 128},
                                               {4100, 16, 16, 300, 64},
                                               {200, 2, 1, 40000, 128}}) {
    SCOPED_TRACE(testing::Message() << sizes.rows << " rows, " << sizes.keys << " keys, width " << sizes.width);
    expect_kernel_as_composition(inputs_of(sizes), 1 / std::sqrt(static_cast<double>(sizes.width)));
  }
}

// Queries, keys and values side by side in the rows of one product.
TEST_F(DenseAttentionOnGpu, RowsMayStandApart) {
  const at::Tensor fused = random({500, 10, 128});
  const auto part = [&](int64_t first, int64_t count) { return fused.narrow(1, first, count); };
  const at::Tensor on_device = fused.to(device());
  const auto there = [&](int64_t first, int64_t count) { return on_device.narrow(1, first, count); };
  expect_near(attend({there(0, 6), there(6, 2), there(8, 2)}, 0.1),
              composed_attention(part(0, 6), part(6, 2), part(8, 2), 0.1));
}

// Scores that grow from tile to tile, far beyond what exp takes, and very small ones.
TEST_F(DenseAttentionOnGpu, LargeScoresNeitherOverflowNorVanish) {
  Inputs inputs = inputs_of({200, 2, 2, 1500, 128});
  inputs.keys = (inputs.keys.to(at::kFloat) * (at::arange(1500).view({-1, 1, 1}) / 100.0f)).to(at::kBFloat16);
  expect_kernel_as_composition(inputs, 1);
  expect_kernel_as_composition(inputs, 1e-6);
}

TEST_F(DenseAttentionOnGpu, TwiceIsTheSameBitForBit) {
  const Inputs inputs = there(inputs_of({1000, 8, 2, 9001, 128}));
  const PartialAttention first = attend(inputs, 0.09), second = attend(inputs, 0.09);
  EXPECT_TRUE(first.output.equal(second.output) && first.log_sum_exp.equal(second.log_sum_exp));
}

TEST_F(DenseAttentionOnGpu, NaNOfAKeyReachesItsHeadsAlone) {
  const Inputs inputs = there(inputs_of({140, 4, 2, 600, 64}));
  inputs.keys.select(0, 599).select(0, 1).fill_(std::nan(""));
  const at::Tensor found = attend(inputs, 0.1).output.isnan();
  EXPECT_TRUE(found.narrow(0, 2, 2).all().item<bool>());
  EXPECT_FALSE(found.narrow(0, 0, 2).any().item<bool>());
}

TEST_F(DenseAttentionOnGpu, OthersAreNotTaken) {
  const Inputs taken = there(inputs_of({160, 2, 2, 300, 64}));
  const auto takes = [](const Inputs& inputs) {
    return dense_attention(inputs.queries, inputs.keys, inputs.values, 0.1).has_value();
  };
  EXPECT_TRUE(takes(taken));
  EXPECT_FALSE(takes(there(inputs_of({160, 2, 2, 300, 96}))));
  EXPECT_FALSE(takes(there(inputs_of({128, 2, 2, 300, 64}))));
  EXPECT_FALSE(takes({taken.queries.to(at::kFloat), taken.keys.to(at::kFloat), taken.values.to(at::kFloat)}));
  EXPECT_FALSE(takes({taken.queries.transpose(0, 1).contiguous().transpose(0, 1), taken.keys, taken.values}));
  EXPECT_FALSE(takes({taken.queries.detach().requires_grad_(), taken.keys, taken.values}));
}

}  // namespace
}  // namespace cepe::ops
