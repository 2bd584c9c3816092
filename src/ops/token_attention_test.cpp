// A decoded token's self-attention by its definition: the heads turned, the new row in its slot, all cached rows seen.
#include "ops/token_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <vector>

#include "ops/int8_rows.h"
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

TEST(TokenAttention, ReadsAndWritesACacheIn8Bits) {
  at::manual_seed(4);
  const auto packed_heads = [](const at::Tensor& dense) {
    return empty_int8_heads(slots, groups, width, at::kCPU).copy_(int8_rows(dense));
  };
  const at::Tensor keys = packed_heads(at::randn({slots, groups, width})),
                   values = packed_heads(at::randn({slots, groups, width}));
  const at::Tensor query = at::randn({1, heads, width}), key = at::randn({1, groups, width}),
                   value = at::randn({1, groups, width}), angles = at::rand({1, half}) * 6.3;
  at::Tensor whole_keys = unpacked_rows(keys, at::kFloat), whole_values = unpacked_rows(values, at::kFloat);
  PageTable table = cache_form(keys, values);
  table.first_page = at::tensor({0, 1}, at::kInt);
  table.rows = at::tensor({6}, at::kInt);
  table.keys = at::tensor({address_of(keys.narrow(0, 8, 6))}, at::kLong);
  table.values = at::tensor({address_of(values.narrow(0, 8, 6))}, at::kLong);
  const TokenHeads token = {query, key, value, angles.cos(), angles.sin(), at::tensor({13}, at::kLong), keys, values};
  const at::Tensor output = token_attention(token, table, at::tensor({0, 3}, at::kInt), 0.3);

  const at::Tensor new_key = unpacked_rows(int8_rows(rotate(key, angles.cos(), angles.sin())), at::kFloat),
                   new_value = unpacked_rows(int8_rows(value), at::kFloat);
  whole_keys[13].copy_(new_key[0]);
  whole_values[13].copy_(new_value[0]);
  EXPECT_TRUE(unpacked_rows(keys, at::kFloat).equal(whole_keys));
  EXPECT_TRUE(unpacked_rows(values, at::kFloat).equal(whole_values));
  EXPECT_LT((new_key - rotate(key, angles.cos(), angles.sin())).abs().max().item<double>(), 0.02);
  const auto of_heads = [&](const at::Tensor& cache) {
    return cache.narrow(0, 8, 6).repeat_interleave(heads / groups, 1);
  };
  const at::Tensor turned = rotate(query, angles.cos(), angles.sin())[0];
  const at::Tensor scores = at::einsum("hd,mhd->hm", {turned, of_heads(whole_keys)}) * 0.3;
  const at::Tensor expected = at::einsum("hm,mhd->hd", {at::softmax(scores, -1), of_heads(whole_values)});
  EXPECT_LT((output[0] - expected).abs().max().item<double>(), 1e-5);
}

}  // namespace
}  // namespace cepe::ops
