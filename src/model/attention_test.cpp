#include "model/attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "golden_tensors.h"

namespace cepe::model {
namespace {

// What the GPU's kernels are held against (attention_gpu_test.cpp): parts make the whole, in any type of keys.
TEST(AttentionInParts, IsTheAttentionOverAllTheKeys) {
  const at::NoGradGuard none;
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor queries = at::randn({5, 4, 16}), keys = at::randn({50, 2, 16}).to(type),
                     values = at::randn({50, 2, 16}).to(type);
    const at::Tensor whole = attend_all(queries, keys, values, 0.25);
    AttentionInParts attention(queries, 0.25), one(queries, 0.25);
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 7}, {7, 42}, {49, 1}})
      attention.read(keys.narrow(0, first, count), values.narrow(0, first, count));
    one.read(keys, values);
    EXPECT_LE(test::distance(attention.output(), whole), 1e-6);
    EXPECT_LE(test::distance(attention.log_sum_exp(), one.log_sum_exp()), 1e-6);
  }
}

TEST(FlashAttention, IsAskedForOnlyWhereItRuns) {
  for (const int older : {0, 61, 70, 75}) EXPECT_FALSE(has_flash_attention(older)) << older;
  for (const int newer : {80, 86, 89, 90, 100, 120}) EXPECT_TRUE(has_flash_attention(newer)) << newer;
}

}  // namespace
}  // namespace cepe::model
