// Attention on a GPU, by whichever of LibTorch's kernels the lengths choose, against the CPU in float32.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include "golden_tensors.h"
#include "gpu.h"
#include "model/attention.h"
#include "model/cross_attention.h"
#include "ops/int8_rows.h"

namespace cepe::model {
namespace {

class AttentionOnGpu : public test::OnGpu {
 protected:
  static constexpr double scale = 0.125, tolerance = 2e-2;
  const at::NoGradGuard none_;

  // Whole numbers of bfloat16, so that both sides see the same.
  static at::Tensor random(at::IntArrayRef sizes) { return at::randn(sizes).to(at::kBFloat16).to(at::kFloat); }
  static at::Tensor there(const at::Tensor& x) { return x.to(device(), at::kBFloat16); }
  static void expect_close(const at::Tensor& found, const at::Tensor& expected) {
    EXPECT_EQ(found.scalar_type(), at::kBFloat16);
    EXPECT_LE(test::distance(found.to(at::kCPU, at::kFloat), expected), tolerance);
  }
};

// Round and other numbers of queries and keys; heads that share keys; several parts, each of them cut again.
TEST_F(AttentionOnGpu, KeysThatComeInParts) {
  for (const int64_t queries : {1, 100, 333, 1024}) {
    for (const int64_t groups : {1, 2}) {
      const at::Tensor asked = random({queries, 2, 64}), keys = random({9000, groups, 64}),
                       values = random({9000, groups, 64});
      const at::Tensor expected = attend_all(asked, keys, values, scale);
      expect_close(attend_all(there(asked), there(keys), there(values), scale), expected);
      AttentionInParts attention(there(asked), scale);
      for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 4096}, {4096, 4204}, {8300, 700}})
        attention.read(there(keys.narrow(0, first, count)), there(values.narrow(0, first, count)));
      expect_close(attention.output(), expected);
      AttentionInParts here(asked, scale);
      here.read(keys, values);
      EXPECT_LE((attention.log_sum_exp().cpu() - here.log_sum_exp()).abs().max().item<double>(), tolerance);
    }
  }
}

// Query rows few enough to read them as they are, and so many that they are unpacked.
TEST_F(AttentionOnGpu, AbsorbedOverStatesIn8Bits) {
  CrossAttention here, on_device;
  here.key.weight = random({128, 512}), here.value.weight = random({128, 512});  // of two groups
  on_device.key.weight = there(here.key.weight), on_device.value.weight = there(here.value.weight);
  ContextStates states, moved;
  for (const int64_t rows : {256, 256, 100, 7}) {
    states.append(ops::int8_rows(random({rows, 512}) * 0.1));
    moved.append(states.pages.back().to(device()));
  }
  const HeadShape shape = {4, 2, 64};
  for (const int64_t rows : {1, 32, 33, 90}) {
    const at::Tensor queries = random({rows, 4, 64});
    expect_close(attend_absorbed(on_device, there(queries), moved, shape),
                 attend_absorbed(here, queries, states, shape));
  }
}

TEST_F(AttentionOnGpu, ChunksAndCausalRowsOfAnyLength) {
  for (const int64_t chunks : {1, 3, 64}) {
    const at::Tensor x = random({chunks, 32, 2, 64}), y = random({chunks, 32, 2, 64}), z = random({chunks, 32, 2, 64});
    expect_close(attend_chunks(there(x), there(y), there(z), {}, scale), attend_chunks(x, y, z, {}, scale));
  }
  for (const int64_t rows : {2, 40, 77, 1024}) {
    for (const int64_t width : {8, 16, 64}) {
      SCOPED_TRACE(c10::str(rows, " rows of ", width));
      const at::Tensor x = random({rows, 4, width}), y = random({rows, 2, width}), z = random({rows, 2, width});
      expect_close(attend_causal(there(x), there(y), there(z), scale, 0), attend_causal(x, y, z, scale, 0));
    }
  }
}

// The last rows of a sequence whose others are there already.
TEST_F(AttentionOnGpu, CausalRowsBehindOthers) {
  for (const int64_t rows : {2, 300, 1024}) {
    for (const int64_t before : {1, 700}) {
      for (const int64_t width : {16, 64, 128}) {
        SCOPED_TRACE(c10::str(rows, " rows of ", width, " behind ", before));
        const int64_t total = before + rows;
        const at::Tensor x = random({rows, 4, width}), y = random({total, 2, width}), z = random({total, 2, width});
        for (const int64_t window : {int64_t{0}, total - 1})
          expect_close(attend_causal(there(x), there(y), there(z), scale, window),
                       attend_causal(x, y, z, scale, window));
      }
    }
  }
}

// What the pages of a context give to a query, by each of the ways in which it is computed.
TEST_F(AttentionOnGpu, MassesOfPages) {
  const HeadShape shape = {4, 2, 64};
  CrossAttention here, on_device;
  here.query.weight = random({256, 64}) * 0.3, here.output.weight = random({64, 256});
  here.key.weight = random({128, 512}) * 0.3, here.value.weight = random({128, 512});
  for (const auto part :
       {&CrossAttention::query, &CrossAttention::key, &CrossAttention::value, &CrossAttention::output})
    (on_device.*part).weight = there((here.*part).weight);
  const at::Tensor hidden = random({3, 64});
  const BatchLayout layout = single_layout(at::zeros({3}, at::kLong), 0);
  for (const bool packed : {false, true}) {
    ContextStates states, moved;
    for (const int64_t rows : {256, 256, 100, 7}) {
      const at::Tensor page = random({rows, 512}) * 0.1;
      states.append(packed ? ops::int8_rows(page) : page);
      moved.append(packed ? states.pages.back().to(device()) : there(page));
    }
    for (const bool kept : {false, true}) {
      if (kept) {
        keep_projections(states, std::vector<const CrossAttention*>{&here}, shape, at::kFloat);
        keep_projections(moved, std::vector<const CrossAttention*>{&on_device}, shape, at::kBFloat16);
      }
      ContextMass expected, found;
      forward(here, hidden, layout, {{&here}, {&states}, CrossAttentionPath::automatic, {}, {&expected}}, shape, 0);
      forward(on_device, there(hidden), layout, {{&on_device}, {&moved}, CrossAttentionPath::automatic, {}, {&found}},
              shape, 0);
      ASSERT_EQ(found.sum.sizes(), expected.sum.sizes());
      EXPECT_LE(test::distance(found.sum.to(at::kCPU, at::kFloat), expected.sum), tolerance) << packed << kept;
      EXPECT_NEAR(found.sum.sum().item<double>(), 1, 1e-3);
    }
  }
}

}  // namespace
}  // namespace cepe::model
