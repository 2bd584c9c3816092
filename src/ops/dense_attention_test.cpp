// The composition against attention row by row in float64.
#include "ops/dense_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace cepe::ops {
namespace {

TEST(ComposedAttention, IsSoftmaxOfScoresTimesValues) {
  const int64_t rows = 5, heads = 6, groups = 2, width = 12, keys_read = 9;
  const at::Tensor queries = at::randn({rows, heads, width}), keys = at::randn({keys_read, groups, width}),
                   values = at::randn({keys_read, groups, width});
  const PartialAttention found = composed_attention(queries, keys, values, 0.3);
  ASSERT_EQ(found.output.sizes(), at::IntArrayRef({heads, rows, width}));
  ASSERT_EQ(found.log_sum_exp.sizes(), at::IntArrayRef({heads, rows}));
  const auto exact = [](const at::Tensor& of, int64_t group) { return of.select(1, group).to(at::kDouble); };
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t group = head / (heads / groups);
      const at::Tensor scores = at::mv(exact(keys, group), queries[row][head].to(at::kDouble)) * 0.3;
      const double total = scores.logsumexp(0).item<double>();
      EXPECT_NEAR(found.log_sum_exp[head][row].item<double>(), total, 1e-5);
      const at::Tensor expected = at::mv(exact(values, group).t(), (scores - total).exp());
      EXPECT_LT((found.output[head][row] - expected).abs().max().item<double>(), 1e-5);
    }
  }
}

TEST(ComposedAttention, IsDifferentiable) {
  const at::Tensor queries = at::randn({3, 2, 4}).requires_grad_(), keys = at::randn({7, 1, 4}).requires_grad_(),
                   values = at::randn({7, 1, 4}).requires_grad_();
  const PartialAttention found = composed_attention(queries, keys, values, 0.5);
  (found.output.sum() + found.log_sum_exp.sum()).backward();
  for (const at::Tensor& of : {queries, keys, values}) EXPECT_GT(of.grad().abs().max().item<float>(), 0);
}

TEST(DenseAttention, HasNoKernelOnACpu) {
  const at::Tensor rows = at::randn({256, 2, 64}).to(at::kBFloat16);
  EXPECT_FALSE(dense_attention(rows, rows, rows, 1));
}

}  // namespace
}  // namespace cepe::ops
