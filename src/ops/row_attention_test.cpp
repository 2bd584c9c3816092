#include "ops/row_attention.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "distance.h"
#include "every_level.h"
#include "ops/cpu/kernels.h"
#include "ops/pair_attention.h"

namespace cepe::ops {
namespace {

using test::at_every_level;
using test::distance;

struct Expected {
  at::Tensor output, log_sum_exp;
};

Expected by_definition(const at::Tensor& queries, std::span<const RowPage> pages, double scale) {
  std::vector<at::Tensor> keys, values;
  for (const RowPage& page : pages) {
    keys.push_back(page.keys.to(at::kDouble));
    values.push_back(page.values.to(at::kDouble));
  }
  const at::Tensor scores = at::einsum("rgd,mgd->rgm", {queries.to(at::kDouble), at::cat(keys)}) * scale;
  return {at::einsum("rgm,mgd->rgd", {at::softmax(scores, -1), at::cat(values)}), at::logsumexp(scores, {2})};
}

void expect_definition(const at::Tensor& queries, std::span<const RowPage> pages, double scale) {
  const Expected expected = by_definition(queries, pages, scale);
  at_every_level([&] {
    const RowAttention result = row_attention(queries, pages, scale);
    const bool rounds = prefers_pair_attention(queries, pages);
    EXPECT_LT(distance(result.output, expected.output), rounds ? 8e-3 : 5e-6);
    EXPECT_LT(distance(result.log_sum_exp, expected.log_sum_exp), rounds ? 2e-3 : 2e-6);
  });
}

TEST(RowAttention, IsSoftmaxOverAllRowsOfAllPages) {
  at::manual_seed(1);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t width : {5, 32, 64, 80, 128}) {
      for (const auto& [heads, groups] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 3}, {4, 2}, {21, 1}}) {
        std::vector<RowPage> pages;
        for (const int64_t rows : {3, 0, 130, 64, 1}) {
          pages.push_back({at::randn({rows, groups, width}).to(type), at::randn({rows, groups, width}).to(type)});
        }
        SCOPED_TRACE("width " + std::to_string(width) + " R " + std::to_string(heads));
        expect_definition(at::randn({heads, groups, width}), pages, 0.3);
      }
    }
  }
}

TEST(RowAttention, AbsorbedStatesServeAsKeysAndValues) {
  at::manual_seed(2);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t width : {48, 576}) {
      const at::Tensor states = at::randn({777, 1, width}).to(type);
      const std::vector<RowPage> pages = {{states, states}};
      expect_definition(at::randn({9, 1, width}), pages, 0.05);
      expect_definition(at::randn({130, 1, width}), pages, 0.05);
    }
  }
}

TEST(RowAttention, ValuesMayBeOfAnotherWidthAndType) {
  at::manual_seed(3);
  const std::vector<RowPage> pages = {
      {at::randn({40, 2, 64}).to(at::kBFloat16), at::randn({40, 2, 96})},
      {at::randn({9, 2, 64}), at::randn({9, 2, 96}).to(at::kBFloat16)},
  };
  expect_definition(at::randn({3, 2, 64}), pages, 0.2);
}

TEST(RowAttention, RowsMayStandApart) {
  at::manual_seed(4);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor both = at::randn({500, 2, 3, 64}).to(type);  // keys and values of a token side by side
    const std::vector<RowPage> pages = {{both.select(1, 0), both.select(1, 1)}};
    expect_definition(at::randn({3, 3, 64}), pages, 0.125);
  }
}

TEST(RowAttention, ManyRowsSplitAmongThreadsAgree) {
  at::manual_seed(5);
  std::vector<RowPage> pages;
  pages.reserve(9);
  for (int page = 0; page < 9; ++page) {
    pages.push_back({at::randn({500, 3, 64}).to(at::kBFloat16), at::randn({500, 3, 64}).to(at::kBFloat16)});
  }
  expect_definition(at::randn({3, 3, 64}), pages, 0.125);
}

TEST(RowAttention, LargeScoresNeitherOverflowNorVanish) {
  at::manual_seed(6);
  const std::vector<RowPage> pages = {{at::randn({100, 1, 64}) * 30, at::randn({100, 1, 64})}};
  expect_definition(at::randn({2, 1, 64}) * 30, pages, 1.0);
}

TEST(RowAttention, WithoutRowsTheOutputIsZeroAndTheDenominatorNothing) {
  const at::Tensor queries = at::randn({3, 2, 64});
  const std::vector<RowPage> empty = {{at::empty({0, 2, 64}), at::empty({0, 2, 64})}};
  for (const auto pages : {std::span<const RowPage>{}, std::span<const RowPage>(empty)}) {
    const RowAttention result = row_attention(queries, pages, 1.0);
    EXPECT_EQ(result.output.sizes(), queries.sizes());
    EXPECT_EQ(result.output.abs().max().item<float>(), 0);
    EXPECT_EQ(result.log_sum_exp.max().item<float>(), -INFINITY);
  }
}

TEST(RowAttention, NotANumberSpreadsToWhoeverReadsIt) {
  at::manual_seed(7);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor queries = at::randn({3, 2, 64}), keys = at::randn({900, 2, 64}).to(type), values = keys.clone();
    for (const int64_t row : {0, 450, 899}) {
      at::Tensor damaged = keys.clone();
      damaged[row][1][5] = nan;
      at_every_level([&] {
        const RowAttention result = row_attention(queries, std::vector<RowPage>{{damaged, values}}, 0.125);
        EXPECT_TRUE(result.output.select(1, 1).isnan().all().item<bool>()) << row;
        EXPECT_TRUE(result.log_sum_exp.select(1, 1).isnan().all().item<bool>()) << row;
        EXPECT_TRUE(result.output.select(1, 0).isfinite().all().item<bool>()) << row;
      });
    }
    at_every_level([&] {
      const std::vector<RowPage> pages = {{at::full_like(keys, nan), values}};
      EXPECT_TRUE(row_attention(queries, pages, 0.125).output.isnan().all().item<bool>());
    });
  }
}

TEST(RowAttention, PagesThatDoNotFitAreRefused) {
  const at::Tensor queries = at::randn({3, 2, 64});
  const auto refused = [&](const at::Tensor& keys, const at::Tensor& values) {
    const std::vector<RowPage> pages = {{keys, values}};
    EXPECT_THROW(row_attention(queries, pages, 1.0), base::Error);
  };
  refused(at::randn({4, 2, 32}), at::randn({4, 2, 32}));
  refused(at::randn({4, 1, 64}), at::randn({4, 1, 64}));
  refused(at::randn({4, 2, 64}), at::randn({5, 2, 64}));
  refused(at::randn({4, 2, 64}).to(at::kDouble), at::randn({4, 2, 64}));
  refused(at::randn({64, 2, 4}).transpose(0, 2), at::randn({4, 2, 64}));
}

}  // namespace
}  // namespace cepe::ops
