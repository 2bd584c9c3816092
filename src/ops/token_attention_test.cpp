// A decoded token's self-attention by its definition: the heads turned, the new row in its slot, all cached rows seen.
#include "ops/token_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <vector>

#include "ops/rotary.h"

namespace cepe::ops {
namespace {

constexpr int64_t heads = 6, groups = 2, width = 16, half = 6, slots = 24;

TEST(TokenAttention, TurnsHeadsAndSeesAllCachedRowsTheNewOneIncluded) {
  at::manual_seed(3);
  const at::Tensor cache_keys = at::randn({slots, groups, width}), cache_values = at::randn({slots, groups, width});
  const at::Tensor queries = at::randn({3, heads, width}), keys = at::randn({3, groups, width}),
                   values = at::randn({3, groups, width}), angles = at::rand({3, half}) * 6.3;
  const at::Tensor cos = angles.cos(), sin = angles.sin();
  // Rows of each sequence in order; the last is the token's. The third sequence is none.
  const std::vector<std::vector<int64_t>> rows = {{8, 9, 10, 11, 16, 17}, {4}};
  at::Tensor expected_keys = cache_keys.clone(), expected_values = cache_values.clone();
  std::vector<at::Tensor> expected;
  for (int64_t i = 0; i < 2; ++i) {
    const int64_t slot = rows[static_cast<size_t>(i)].back();
    expected_keys[slot].copy_(rotate(keys, cos, sin)[i]);
    expected_values[slot].copy_(values[i]);
    const at::Tensor places = at::tensor(rows[static_cast<size_t>(i)], at::kLong);
    const auto of_heads = [&](const at::Tensor& cache) {
      return cache.index_select(0, places).repeat_interleave(heads / groups, 1);
    };
    const at::Tensor scores = at::einsum("hd,mhd->hm", {rotate(queries, cos, sin)[i], of_heads(expected_keys)}) * 0.3;
    expected.push_back(at::einsum("hm,mhd->hd", {at::softmax(scores, -1), of_heads(expected_values)}));
  }

  const auto page = [&](int64_t first, int64_t count) {
    return RowPage{cache_keys.narrow(0, first, count), cache_values.narrow(0, first, count)};
  };
  const std::vector<std::vector<RowPage>> pages = {{page(8, 4), page(16, 2)}, {page(4, 1)}, {}};
  const TokenHeads token = {queries,    keys,        values, cos, sin, at::tensor({17, 4, 0}, at::kLong),
                            cache_keys, cache_values};
  const at::Tensor output =
      token_attention(token, page_table(pages, at::kCPU), at::tensor({0, 3, 6, 6}, at::kInt), 0.3);

  EXPECT_LT((output.narrow(0, 0, 2) - at::stack(expected)).abs().max().item<double>(), 1e-5);
  EXPECT_EQ(output[2].abs().max().item<double>(), 0);
  const auto used = [](const at::Tensor& cache) { return cache.narrow(0, 4, slots - 4); };
  EXPECT_TRUE(used(cache_keys).equal(used(expected_keys)));
  EXPECT_TRUE(used(cache_values).equal(used(expected_values)));
}

}  // namespace
}  // namespace cepe::ops
