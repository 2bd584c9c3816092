// Ragged batches for paged attention, and what it must give: by definition, in float64. Used on the CPU and on a GPU.
#pragma once

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "ops/cpu/kernels.h"
#include "ops/int8_rows.h"
#include "ops/paged_attention.h"

namespace cepe::test {

struct PagedShape {
  int64_t width, groups;
  bool latent;                                  // the keys serve as values
  std::vector<int64_t> query_rows;              // of each sequence
  std::vector<std::vector<int64_t>> page_rows;  // of each page of each sequence
  int64_t rows_of_token = 0;                    // ops::BatchQueries

  std::string name() const {
    return "width " + std::to_string(width) + ", " + std::to_string(groups) + " groups, " +
           std::to_string(query_rows.size()) + " sequences, first with " + std::to_string(query_rows.front()) +
           " query rows" + (latent ? ", latent" : "") +
           (rows_of_token > 0 ? ", causal by " + std::to_string(rows_of_token) : "");
  }
};

struct PagedCase {
  at::Tensor queries;  // [N, G, D] of values that bfloat16 holds
  ops::BatchQueries batch;
  std::vector<std::vector<ops::RowPage>> pages;  // on the device
  at::Tensor output, log_sum_exp;                // what is expected, float64 on the CPU
};

// Over all cached rows but the last `hidden`.
inline void expect_rows(PagedCase& made, int64_t first, int64_t count, const std::vector<ops::RowPage>& pages,
                        double scale, int64_t hidden = 0) {
  std::vector<at::Tensor> keys, values;
  for (const ops::RowPage& page : pages) {
    const auto wide = [](const at::Tensor& rows) {
      return ops::is_int8_rows(rows) ? ops::unpacked_rows(rows.squeeze(1), at::kDouble).unsqueeze(1)
                                     : rows.to(at::kDouble);
    };
    keys.push_back(wide(page.keys));
    values.push_back(wide(page.values));
  }
  if (keys.empty() || at::cat(keys).size(0) <= hidden || count == 0) return;
  const auto seen = [&](const std::vector<at::Tensor>& parts) {
    const at::Tensor all = at::cat(parts);
    return all.narrow(0, 0, all.size(0) - hidden);
  };
  const at::Tensor queries = made.queries.narrow(0, first, count).to(keys.front().device(), at::kDouble);
  const at::Tensor scores = at::einsum("rgd,mgd->rgm", {queries, seen(keys)}) * scale;
  made.output.narrow(0, first, count).copy_(at::einsum("rgm,mgd->rgd", {at::softmax(scores, -1), seen(values)}));
  made.log_sum_exp.narrow(0, first, count).copy_(at::logsumexp(scores, {2}));
}

// type kChar: packed rows. `spare`: query rows that belong to no sequence.
inline PagedCase make_paged_case(const PagedShape& shape, at::ScalarType type, at::Device device, double scale,
                                 int64_t spare = 0) {
  PagedCase made;
  std::vector<int32_t> first = {0};
  int64_t most = 0;
  for (const int64_t rows : shape.query_rows) {
    first.push_back(first.back() + static_cast<int32_t>(rows));
    most = std::max(most, rows);
  }
  const int64_t all = first.back() + spare;
  made.queries = at::randn({all, shape.groups, shape.width}).to(at::kBFloat16).to(at::kFloat);
  made.output = at::zeros({all, shape.groups, shape.width}, at::kDouble);
  made.log_sum_exp = at::full({all, shape.groups}, -std::numeric_limits<double>::infinity(), at::kDouble);
  for (size_t i = 0; i < shape.query_rows.size(); ++i) {
    std::vector<ops::RowPage> pages;
    for (const int64_t rows : shape.page_rows[i]) {
      const auto random = [&] {
        const at::Tensor dense = at::randn({rows, shape.groups, shape.width});
        if (type != at::kChar) return dense.to(device, type);
        // Rows of different scales, as states have.
        const at::Tensor states = dense.squeeze(1) * (at::randn({rows, 1}) * 0.3).exp();
        return ops::int8_rows(states.to(device)).unsqueeze(1);
      };
      const at::Tensor keys = random();
      pages.push_back({keys, shape.latent ? keys : random()});
    }
    const int64_t count = shape.query_rows[i], each = shape.rows_of_token > 0 ? shape.rows_of_token : count;
    for (int64_t row = 0; row < count; row += each)
      expect_rows(made, first[i] + row, each, pages, scale, (count - row) / each - 1);
    made.pages.push_back(pages);
  }
  made.batch = {made.queries.to(device), at::tensor(first, at::kInt).to(device), most, shape.rows_of_token};
  return made;
}

inline double paged_distance(const at::Tensor& a, const at::Tensor& b) {
  if (b.numel() == 0) return 0;
  return ((a.to(at::kCPU, at::kDouble) - b).abs().max() / b.abs().max().clamp_min(1e-30)).item<double>();
}

// The probabilities are rounded to bfloat16 on a GPU.
inline void expect_paged(const PagedShape& shape, at::ScalarType type, at::Device device, int64_t spare = 0) {
  SCOPED_TRACE(shape.name());
  const double scale = 1.5 / std::sqrt(static_cast<double>(shape.width));
  const PagedCase made = make_paged_case(shape, type, device, scale, spare);
  const ops::PageTable table = ops::page_table(made.pages, device);
  ASSERT_EQ(table.values.defined(), !shape.latent);
  ASSERT_TRUE(shape.rows_of_token > 0 ? ops::takes_causal_queries(table, device)
                                      : ops::takes_paged_attention(table, device));
  const ops::BatchAttention result = ops::paged_attention(made.batch, table, scale);
  const bool rounds = !device.is_cpu() || ops::cpu::pair_kernel().fast;  // probabilities, to bfloat16
  EXPECT_LT(paged_distance(result.output, made.output), rounds ? 6e-3 : 1e-5);
  const at::Tensor there = made.log_sum_exp > -std::numeric_limits<double>::infinity();
  const at::Tensor logs = result.log_sum_exp.to(at::kCPU, at::kDouble);
  EXPECT_TRUE((logs > -std::numeric_limits<double>::infinity()).equal(there));
  EXPECT_LT(paged_distance(logs.masked_select(there), made.log_sum_exp.masked_select(there)), 2e-3);

  // The same again, in bfloat16 in and out: only rounded once more, or another kernel, which rounds each part's sums;
  // from the first row on and from the last.
  ops::BatchQueries narrow = made.batch;
  narrow.rows = narrow.rows.to(at::kBFloat16);
  for (const bool backwards : {false, true}) {
    narrow.backwards = backwards;
    const ops::BatchAttention rounded = ops::paged_attention(narrow, table, scale, at::kBFloat16);
    if (device.is_cpu() || !shape.latent) {
      EXPECT_TRUE(rounded.output.equal(result.output.to(at::kBFloat16)));
      EXPECT_TRUE(rounded.log_sum_exp.equal(result.log_sum_exp));
    } else {
      EXPECT_LT(paged_distance(rounded.output, made.output), 1e-2);
      const at::Tensor its_logs = rounded.log_sum_exp.to(at::kCPU, at::kDouble);
      EXPECT_TRUE((its_logs > -std::numeric_limits<double>::infinity()).equal(there));
      EXPECT_LT(paged_distance(its_logs.masked_select(there), made.log_sum_exp.masked_select(there)), 2e-3);
    }
  }
}

}  // namespace cepe::test
