// Log-sum-exps of pages, and what they must be: by definition, in float64. Used on the CPU and on a GPU.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "ops/int8_rows.h"
#include "ops/page_log_sum_exps.h"

namespace cepe::test {

// Pages of any length, of three sequences in any order, one of them twice. type kChar: packed rows.
inline void expect_page_sums(int64_t width, int64_t groups, int64_t each, at::ScalarType type, at::Device device) {
  SCOPED_TRACE("width " + std::to_string(width) + ", " + std::to_string(groups) + " groups, " + std::to_string(each) +
               " query rows");
  const double scale = 1.5 / std::sqrt(static_cast<double>(width));
  // A CPU's kernel for pairs of bfloat16 (pair_attention.h) adds up probabilities that are rounded.
  const double tolerance = device.is_cpu() && type == at::kBFloat16 ? 5e-3 : 1e-3;
  const std::vector<int64_t> page_rows = {256, 17, 1, 0, 200, 8, 63}, of = {0, 2, 1, 0, 2, 1, 1};
  const at::Tensor queries = at::randn({3 * each, groups, width}).to(at::kBFloat16);
  std::vector<ops::RowPage> pages;
  for (const int64_t rows : page_rows) {
    const at::Tensor dense = at::randn({rows, groups, width}).to(device, type == at::kChar ? at::kFloat : type);
    const at::Tensor keys = type == at::kChar ? ops::int8_rows(dense.squeeze(1)).unsqueeze(1) : dense;
    pages.push_back({keys, keys});
  }
  const std::vector<std::vector<ops::RowPage>> one = {pages};
  const at::Tensor found = ops::page_log_sum_exps(queries.to(device), 3, at::tensor(of, at::kLong).to(device),
                                                  ops::page_table(one, device), scale)
                               .to(at::kCPU, at::kDouble);
  ASSERT_EQ(found.sizes(), at::IntArrayRef({static_cast<int64_t>(of.size()), each, groups}));
  for (size_t page = 0; page < of.size(); ++page) {
    const at::Tensor its = found[static_cast<int64_t>(page)];
    if (page_rows[page] == 0) {
      EXPECT_TRUE((its == -std::numeric_limits<double>::infinity()).all().item<bool>());
      continue;
    }
    const at::Tensor keys = type == at::kChar
                                ? ops::unpacked_rows(pages[page].keys.squeeze(1), at::kDouble).unsqueeze(1)
                                : pages[page].keys.to(at::kDouble);
    const at::Tensor asked = queries.narrow(0, of[page] * each, each).to(at::kDouble);
    const at::Tensor scores = at::einsum("rgd,mgd->rgm", {asked, keys.to(at::kCPU)}) * scale;
    EXPECT_LT((its - at::logsumexp(scores, {2})).abs().max().item<double>(), tolerance) << "page " << page;
  }
}

}  // namespace cepe::test
