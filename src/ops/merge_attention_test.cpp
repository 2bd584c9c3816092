#include "ops/merge_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"

namespace cepe::ops {
namespace {

// Rows of scores against values: the attention's definition.
PartialAttention attend(const at::Tensor& scores, const at::Tensor& values) {
  return {at::softmax(scores, -1).matmul(values), at::logsumexp(scores, {-1})};
}

TEST(MergeAttention, PartsMakeTheWhole) {
  const at::Tensor scores = at::randn({3, 5, 40}) * 4, values = at::randn({40, 7});
  const PartialAttention whole = attend(scores, values);
  for (const int64_t first : {1, 13, 39}) {
    const PartialAttention merged =
        merge_attention(attend(scores.narrow(2, 0, first), values.narrow(0, 0, first)),
                        attend(scores.narrow(2, first, 40 - first), values.narrow(0, first, 40 - first)));
    EXPECT_LT((merged.output - whole.output).abs().max().item<float>(), 1e-5);
    EXPECT_LT((merged.log_sum_exp - whole.log_sum_exp).abs().max().item<float>(), 1e-5);
  }
}

TEST(MergeAttention, APartWithoutKeysCountsForNothing) {
  const PartialAttention some = {at::randn({4, 6}), at::randn({4})};
  const PartialAttention none = {at::zeros({4, 6}), at::full({4}, -std::numeric_limits<float>::infinity())};
  for (const PartialAttention& merged : {merge_attention(some, none), merge_attention(none, some)}) {
    EXPECT_TRUE(merged.output.equal(some.output));
    EXPECT_TRUE(merged.log_sum_exp.equal(some.log_sum_exp));
  }
  EXPECT_TRUE(merge_attention(none, none).output.equal(none.output));
}

TEST(MergeAttention, SizesThatDisagreeAreRefused) {
  const PartialAttention good = {at::zeros({4, 6}), at::zeros({4})};
  EXPECT_THROW(merge_attention(good, {at::zeros({4, 5}), at::zeros({4})}), base::Error);
  EXPECT_THROW(merge_attention(good, {at::zeros({4, 6}), at::zeros({4, 1})}), base::Error);
}

}  // namespace
}  // namespace cepe::ops
