#include "ops/pair_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "distance.h"

namespace cepe::ops {
namespace {

using test::distance;

// That this processor has; tiles where the widths are multiples of theirs.
std::vector<std::pair<std::string, cpu::PairKernel>> pair_kernels_for(const RowPage& page) {
  std::vector<std::pair<std::string, cpu::PairKernel>> found = {{"portable", cpu::portable_pair_kernel()}};
  if (page.keys.size(2) % 32 != 0 || page.values.size(2) % 32 != 0) return found;
  found.emplace_back("portable tiles", cpu::portable_tile_kernel());
  if (cpu::pair_kernel().fast) found.emplace_back("chosen", cpu::pair_kernel());
#if defined(__x86_64__)
  if (cpu::has_pair_instructions()) found.emplace_back("AVX512_BF16", cpu::avx512bf16_pair_kernel());
#endif
  return found;
}

at::Tensor random_pairs(at::IntArrayRef sizes) { return at::randn(sizes).to(at::kBFloat16); }

// By definition in float64, from queries as the kernel reads them. The kernel's probabilities are off by 0.65 % at most
// and by 0.22 % on average (ops/cpu/power_table.h), which a log-sum-exp shows where few rows weigh much.
void expect_pair_definition(const at::Tensor& queries, std::span<const RowPage> pages, double scale) {
  std::vector<at::Tensor> keys, values;
  for (const RowPage& page : pages) {
    keys.push_back(page.keys.to(at::kDouble));
    values.push_back(page.values.to(at::kDouble));
  }
  const at::Tensor asked = queries.to(at::kBFloat16).to(at::kDouble);
  const at::Tensor scores = at::einsum("rgd,mgd->rgm", {asked, at::cat(keys)}) * scale;
  const at::Tensor output = at::einsum("rgm,mgd->rgd", {at::softmax(scores, -1), at::cat(values)});
  for (const auto& [name, kernel] : pair_kernels_for(pages.front())) {
    SCOPED_TRACE(name);
    const RowAttention result = pair_attention(queries, pages, scale, kernel);
    EXPECT_LT(distance(result.output, output), 4e-3);
    EXPECT_LT((result.log_sum_exp - at::logsumexp(scores, {2})).abs().max().item<double>(), 6.5e-3);
  }
}

TEST(PairAttention, IsSoftmaxOverAllRowsOfAllPages) {
  at::manual_seed(1);
  for (const auto& [width, value_width] :
       std::vector<std::pair<int64_t, int64_t>>{{16, 16}, {64, 64}, {96, 32}, {80, 48}}) {
    for (const auto& [rows, groups] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {16, 3}, {37, 2}, {96, 1}}) {
      SCOPED_TRACE("width " + std::to_string(width) + " R " + std::to_string(rows));
      std::vector<RowPage> pages;
      for (const int64_t cached : {3, 0, 130, 64, 1}) {
        pages.push_back({random_pairs({cached, groups, width}), random_pairs({cached, groups, value_width})});
      }
      expect_pair_definition(at::randn({rows, groups, width}), pages, 0.3);
    }
  }
}

TEST(PairAttention, RowsMayStandApartAndServeAsBoth) {
  at::manual_seed(2);
  const at::Tensor both = random_pairs({200, 256});
  const auto half = [&](int64_t first) { return both.narrow(1, first, 128).unflatten(1, {2, 64}); };
  expect_pair_definition(at::randn({20, 2, 64}), std::vector<RowPage>{{half(0), half(128)}}, 0.2);
  const at::Tensor states = random_pairs({150, 1, 576});
  expect_pair_definition(at::randn({18, 1, 576}), std::vector<RowPage>{{states, states}}, 0.05);
}

TEST(PairAttention, ScoresFarApartNeitherOverflowNorVanish) {
  at::manual_seed(3);
  at::Tensor keys = random_pairs({300, 1, 32});
  keys.narrow(0, 250, 1).mul_(1000);
  expect_pair_definition(at::randn({16, 1, 32}), std::vector<RowPage>{{keys, random_pairs({300, 1, 32})}}, 1);
}

// Two cached rows, of which one scores zero and has a value of zero: the output tells what the other weighs.
TEST(PairAttention, WeightsAreOffByLittleAndByNothingOnAverage) {
  at::manual_seed(4);
  at::Tensor queries = at::zeros({2048, 1, 32}), keys = at::zeros({2, 1, 32}), values = at::zeros({2, 1, 32});
  queries.select(2, 0).copy_((at::rand({2048, 1}) * -12).to(at::kBFloat16));
  keys[1][0][0] = values[1][0][0] = 1;
  const std::vector<RowPage> pages = {{keys.to(at::kBFloat16), values.to(at::kBFloat16)}};
  const at::Tensor expected = queries.select(2, 0).to(at::kDouble).exp();
  for (const auto& [name, kernel] : pair_kernels_for(pages.front())) {
    SCOPED_TRACE(name);
    const at::Tensor share = pair_attention(queries, pages, 1, kernel).output.select(2, 0).to(at::kDouble);
    const at::Tensor off = share / (1 - share) / expected - 1;
    EXPECT_LT(off.abs().max().item<double>(), 6.5e-3);
    EXPECT_LT(std::abs(off.mean().item<double>()), 2e-4);
  }
}

TEST(PairAttention, ScoresOfMinusInfinityWeighNothing) {
  at::manual_seed(5);
  at::Tensor queries = at::randn({16, 1, 32}), keys = at::randn({70, 1, 32});
  queries.select(2, 0).fill_(4);
  keys.select(2, 0).fill_(0.5);
  keys.narrow(0, 3, 65).select(2, 0).fill_(-3e38);
  const at::Tensor rows = keys.to(at::kBFloat16), values = random_pairs({70, 1, 32});
  const auto of = [&](int64_t first, int64_t count) {
    return RowPage{rows.narrow(0, first, count), values.narrow(0, first, count)};
  };
  const std::vector<RowPage> all = {of(0, 70)}, finite = {of(0, 3), of(68, 2)}, none = {of(3, 65)};
  for (const auto& [name, kernel] : pair_kernels_for(all.front())) {
    SCOPED_TRACE(name);
    EXPECT_LT(
        distance(pair_attention(queries, all, 1, kernel).output, pair_attention(queries, finite, 1, kernel).output),
        1e-5);
    const RowAttention nothing = pair_attention(queries, none, 1, kernel);
    EXPECT_TRUE(nothing.output.eq(0).all().item<bool>());
    EXPECT_TRUE(nothing.log_sum_exp.eq(-std::numeric_limits<double>::infinity()).all().item<bool>());
  }
}

// Of a key alone, with its value, and of nothing but such keys, each in the first, a middle and the last block.
TEST(PairAttention, NotANumberSpreadsToWhoeverReadsIt) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const at::Tensor queries = at::randn({18, 2, 32}), keys = random_pairs({150, 2, 32}),
                   values = random_pairs({150, 2, 32});
  for (const int64_t row : {0, 70, 149}) {
    at::Tensor damaged = keys.clone();
    damaged[row][1][5] = nan;
    const std::vector<RowPage> pages = {{damaged.narrow(0, 0, 75), values.narrow(0, 0, 75)},
                                        {damaged.narrow(0, 75, 75), values.narrow(0, 75, 75)}};
    for (const auto& [name, kernel] : pair_kernels_for(pages.front())) {
      SCOPED_TRACE(name + ", row " + std::to_string(row));
      const RowAttention result = pair_attention(queries, pages, 0.2, kernel);
      EXPECT_TRUE(result.output.select(1, 1).isnan().all().item<bool>());
      EXPECT_TRUE(result.log_sum_exp.select(1, 1).isnan().all().item<bool>());
      EXPECT_TRUE(result.output.select(1, 0).isfinite().all().item<bool>());
    }
  }
  const std::vector<RowPage> all = {{at::full_like(keys, nan), values}};
  for (const auto& [name, kernel] : pair_kernels_for(all.front()))
    EXPECT_TRUE(pair_attention(queries, all, 0.2, kernel).output.isnan().all().item<bool>()) << name;
}

TEST(PairAttention, NoRowLeavesZeros) {
  const std::vector<RowPage> none = {{random_pairs({0, 2, 32}), random_pairs({0, 2, 32})}};
  const RowAttention result = pair_attention(at::randn({16, 2, 32}), none, 1, cpu::portable_tile_kernel());
  EXPECT_TRUE(result.output.eq(0).all().item<bool>());
  EXPECT_TRUE(result.log_sum_exp.eq(-std::numeric_limits<double>::infinity()).all().item<bool>());
}

}  // namespace
}  // namespace cepe::ops
