#include "ops/pair_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

namespace cepe::ops {
namespace {

double distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b).abs().max() / b.abs().max().clamp_min(1e-30)).item<double>();
}

// That this processor has; tiles where the widths are multiples of theirs.
std::vector<std::pair<std::string, cpu::PairKernel>> kernels(const RowPage& page) {
  std::vector<std::pair<std::string, cpu::PairKernel>> found = {{"portable", cpu::portable_pair_kernel()}};
  if (page.keys.size(2) % 32 != 0 || page.values.size(2) % 32 != 0) return found;
  found.emplace_back("portable tiles", cpu::portable_tile_kernel());
  if (cpu::pair_kernel().fast) found.emplace_back("chosen", cpu::pair_kernel());
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16")) found.emplace_back("AVX512_BF16", cpu::avx512bf16_pair_kernel());
#endif
  return found;
}

at::Tensor random(at::IntArrayRef sizes) { return at::randn(sizes).to(at::kBFloat16); }

// By definition in float64, from queries as the kernel reads them. The kernel's probabilities are rounded to bfloat16
// (2^-9 each).
void expect_definition(const at::Tensor& queries, std::span<const RowPage> pages, double scale) {
  std::vector<at::Tensor> keys, values;
  for (const RowPage& page : pages) {
    keys.push_back(page.keys.to(at::kDouble));
    values.push_back(page.values.to(at::kDouble));
  }
  const at::Tensor asked = queries.to(at::kBFloat16).to(at::kDouble);
  const at::Tensor scores = at::einsum("rgd,mgd->rgm", {asked, at::cat(keys)}) * scale;
  const at::Tensor output = at::einsum("rgm,mgd->rgd", {at::softmax(scores, -1), at::cat(values)});
  for (const auto& [name, kernel] : kernels(pages.front())) {
    SCOPED_TRACE(name);
    const RowAttention result = pair_attention(queries, pages, scale, kernel);
    EXPECT_LT(distance(result.output, output), 4e-3);
    EXPECT_LT(distance(result.log_sum_exp, at::logsumexp(scores, {2})), 3e-6);
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
        pages.push_back({random({cached, groups, width}), random({cached, groups, value_width})});
      }
      expect_definition(at::randn({rows, groups, width}), pages, 0.3);
    }
  }
}

TEST(PairAttention, RowsMayStandApartAndServeAsBoth) {
  at::manual_seed(2);
  const at::Tensor both = random({200, 256});
  const auto half = [&](int64_t first) { return both.narrow(1, first, 128).unflatten(1, {2, 64}); };
  expect_definition(at::randn({20, 2, 64}), std::vector<RowPage>{{half(0), half(128)}}, 0.2);
  const at::Tensor states = random({150, 1, 576});
  expect_definition(at::randn({18, 1, 576}), std::vector<RowPage>{{states, states}}, 0.05);
}

TEST(PairAttention, ScoresFarApartNeitherOverflowNorVanish) {
  at::manual_seed(3);
  at::Tensor keys = random({300, 1, 32});
  keys.narrow(0, 250, 1).mul_(1000);
  expect_definition(at::randn({16, 1, 32}), std::vector<RowPage>{{keys, random({300, 1, 32})}}, 1);
}

TEST(PairAttention, NoRowLeavesZeros) {
  const std::vector<RowPage> none = {{random({0, 2, 32}), random({0, 2, 32})}};
  const RowAttention result = pair_attention(at::randn({16, 2, 32}), none, 1, cpu::portable_tile_kernel());
  EXPECT_TRUE(result.output.eq(0).all().item<bool>());
  EXPECT_TRUE(result.log_sum_exp.eq(-std::numeric_limits<double>::infinity()).all().item<bool>());
}

}  // namespace
}  // namespace cepe::ops
