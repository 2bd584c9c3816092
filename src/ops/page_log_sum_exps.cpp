#include "ops/page_log_sum_exps.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "ops/cuda/loaded.h"
#include "ops/fused.h"

namespace cepe::ops {
namespace {

// Pages asked about by one call of paged_attention: bounds the memory of their queries and of what comes back.
constexpr int64_t most_pages_of_a_call = 1024;

const cuda::CudaKernels* kernels_for(const at::Tensor& rows, const PageTable& table) {
  const cuda::CudaKernels* kernels = rows.is_cuda() ? cuda::kernels() : nullptr;
  const bool taken = kernels && is_plain_dense(rows, at::kBFloat16, rows.device()) && is_aligned(rows) &&
                     table.key_stride % 8 == 0 && (table.type == at::kBFloat16 || table.type == at::kChar) &&
                     kernels->takes_page_log_sum_exps(table.width, table.type == at::kChar);
  return taken ? kernels : nullptr;
}

// Each page as a sequence of its own, whose keys serve as values.
at::Tensor by_attention(const at::Tensor& by_sequence, const at::Tensor& of, const PageTable& table, double scale) {
  const int64_t pages = of.size(0), each = by_sequence.size(1), most = std::min(most_pages_of_a_call, pages);
  const at::Tensor count = at::arange(most + 1, of.options().dtype(at::kInt)), bounds = count * each;
  std::vector<at::Tensor> found;
  for (int64_t first = 0; first < pages; first += most) {
    const int64_t some = std::min(most, pages - first);
    PageTable part = table;
    part.first_page = count.narrow(0, 0, some + 1);
    part.rows = table.rows.narrow(0, first, some);
    part.keys = table.keys.narrow(0, first, some);
    part.values = at::Tensor();
    const at::Tensor asked = by_sequence.index_select(0, of.narrow(0, first, some)).flatten(0, 1);
    const BatchQueries queries = {asked, bounds.narrow(0, 0, some + 1), each};
    found.push_back(paged_attention(queries, part, scale, asked.scalar_type()).log_sum_exp);
  }
  return (found.size() == 1 ? found.front() : at::cat(found, 0)).reshape({pages, each, -1});
}

}  // namespace

at::Tensor page_log_sum_exps(const at::Tensor& rows, int64_t sequences, const at::Tensor& of, const PageTable& table,
                             double scale) {
  const bool fits = rows.dim() == 3 && sequences > 0 && rows.size(0) % sequences == 0 && rows.size(1) == table.groups &&
                    rows.size(2) == table.width && of.dim() == 1 && of.scalar_type() == at::kLong &&
                    of.size(0) == table.keys.size(0);
  if (!fits)
    throw base::Error(base::ErrorCode::invalid_argument,
                      "log-sum-exps of pages: query rows must be [B * R, G, D] as the pages', and each page have a "
                      "sequence whose they are");
  const int64_t pages = of.size(0), each = rows.size(0) / sequences;
  if (pages == 0) return at::empty({0, each, table.groups}, rows.options().dtype(at::kFloat));
  const cuda::CudaKernels* kernels = kernels_for(rows, table);
  if (!kernels) return by_attention(rows.reshape({sequences, each, rows.size(1), rows.size(2)}), of, table, scale);
  at::Tensor found = at::empty({pages, each, table.groups}, rows.options().dtype(at::kFloat));
  cuda::check(kernels->page_log_sum_exps({.queries = rows.const_data_ptr(),
                                          .of = of.const_data_ptr<int64_t>(),
                                          .keys = table.keys.const_data_ptr<int64_t>(),
                                          .rows = table.rows.const_data_ptr<int32_t>(),
                                          .log_sum_exp = found.mutable_data_ptr<float>(),
                                          .pages = pages,
                                          .each = each,
                                          .groups = table.groups,
                                          .width = table.width,
                                          .key_stride = table.key_stride,
                                          .scale = static_cast<float>(scale),
                                          .int8_pages = table.type == at::kChar,
                                          .device = rows.device().index()}),
              "page_log_sum_exps");
  return found;
}

}  // namespace cepe::ops
