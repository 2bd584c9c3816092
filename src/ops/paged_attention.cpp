#include "ops/paged_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"
#include "ops/cuda/loaded.h"
#include "ops/head_product.h"
#include "ops/int8_rows.h"

namespace cepe::ops {
namespace {

[[noreturn]] void refuse_pages(const std::string& message, base::ErrorCode code = base::ErrorCode::invalid_argument) {
  throw base::Error(code, "paged attention: " + message);
}

void check_page(const at::Tensor& rows, int64_t stride, const PageTable& form, const char* name) {
  if (form.type == at::kChar) {
    if (!is_int8_rows(rows) || rows.dim() != 3 || rows.size(1) != 1 || row_width(rows) != form.width ||
        !rows.is_contiguous()) {
      refuse_pages(std::string(name) + " of a page must be packed rows [rows, 1, " + std::to_string(form.width) +
                   " + 4] as the first page's, contiguous");
    }
    return;
  }
  const bool dense = rows.dim() == 3 && rows.stride(2) == 1 && (rows.size(1) == 1 || rows.stride(1) == rows.size(2));
  if (!dense || rows.size(1) != form.groups || rows.size(2) != form.width || rows.scalar_type() != form.type) {
    refuse_pages(std::string(name) + " of a page must be " + c10::toString(form.type) + " [rows, " +
                 std::to_string(form.groups) + ", " + std::to_string(form.width) +
                 "] as the first page's, dense in a row");
  }
  if (rows.size(0) > 1 && rows.stride(0) != stride) {
    refuse_pages(std::string(name) + " of pages stand " + std::to_string(rows.stride(0)) + " and " +
                 std::to_string(stride) + " elements from row to row; it must be the same in all");
  }
}

// A page of one row, or none, does not say how far rows stand apart.
int64_t stride_of(std::span<const std::vector<RowPage>> sequences, at::Tensor RowPage::*part, int64_t otherwise) {
  for (const std::vector<RowPage>& pages : sequences) {
    for (const RowPage& page : pages) {
      if ((page.*part).size(0) > 1) return (page.*part).stride(0);
    }
  }
  return otherwise;
}

// width: of the result's rows.
void check_pages(const BatchQueries& queries, const PageTable& table, const BatchAttention& result, int64_t width) {
  const at::Tensor& rows = queries.rows;
  const auto is = [&](const at::Tensor& tensor, at::ScalarType type) {
    return tensor.defined() && tensor.scalar_type() == type && tensor.is_contiguous() &&
           tensor.device() == rows.device();
  };
  const auto is_real = [&](const at::Tensor& tensor) { return is(tensor, at::kFloat) || is(tensor, at::kBFloat16); };
  const bool known = table.keys.defined() && table.keys.numel() > 0;  // no page at all has no shape
  if (!is_real(rows) || rows.dim() != 3 || (known && (rows.size(1) != table.groups || rows.size(2) != table.width))) {
    refuse_pages("queries must be contiguous float32 or bfloat16 [N, " + std::to_string(table.groups) + ", " +
                 std::to_string(table.width) + "]");
  }
  const bool tables = is(table.first_page, at::kInt) && is(queries.first, at::kInt) && is(table.rows, at::kInt) &&
                      is(table.keys, at::kLong) && (!table.values.defined() || is(table.values, at::kLong));
  if (!tables || queries.first.numel() < 1 || table.first_page.numel() != queries.first.numel() ||
      table.rows.numel() != table.keys.numel() ||
      (table.values.defined() && table.values.numel() != table.keys.numel())) {
    refuse_pages("the tables must be int32 (addresses int64), contiguous, on the queries' device and of equal lengths");
  }
  const std::array<int64_t, 3> sizes = {rows.size(0), rows.size(1), width};
  if (!is_real(result.output) || result.output.sizes() != at::IntArrayRef(sizes) ||
      !is(result.log_sum_exp, at::kFloat) || result.log_sum_exp.numel() != rows.size(0) * rows.size(1)) {
    refuse_pages("the output must be contiguous [N, G, D] as the queries, the log-sum-exp float32 [N, G]");
  }
}

at::Tensor page_at(const PageTable& table, const at::Tensor& addresses, int64_t page, int64_t stride) {
  const auto address = static_cast<uintptr_t>(addresses.const_data_ptr<int64_t>()[page]);
  auto* first = reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr): what a page table holds
  const int64_t rows = table.rows.const_data_ptr<int32_t>()[page];
  if (table.type == at::kChar)
    return unpacked_rows(at::from_blob(first, {rows, table.width + 4}, at::TensorOptions().dtype(at::kByte)),
                         at::kFloat)
        .unsqueeze(1);
  const int64_t width = table.width + (table.type == at::kByte ? 4 : 0);
  const at::Tensor found =
      at::from_blob(first, {rows, table.groups, width}, {stride, width, 1}, at::TensorOptions().dtype(table.type));
  return unpacked_rows(found, at::kFloat);
}

std::vector<RowPage> without_last_rows(std::vector<RowPage> pages, int64_t count) {
  while (count > 0 && !pages.empty()) {
    RowPage& last = pages.back();
    const int64_t rows = last.keys.size(0), left = std::max<int64_t>(rows - count, 0);
    count -= rows - left;
    last = {last.keys.narrow(0, 0, left), last.values.narrow(0, 0, left)};
    if (left == 0) pages.pop_back();
  }
  return pages;
}

void attend_on_cpu(const BatchQueries& queries, const PageTable& table, double scale, BatchAttention& result) {
  const int32_t* first = queries.first.const_data_ptr<int32_t>();
  const int32_t* first_page = table.first_page.const_data_ptr<int32_t>();
  result.output.zero_();
  result.log_sum_exp.fill_(-std::numeric_limits<double>::infinity());
  const auto attend = [&](int64_t begin, int64_t count, const std::vector<RowPage>& pages) {
    const RowAttention attended = row_attention(queries.rows.narrow(0, begin, count).to(at::kFloat), pages, scale);
    result.output.narrow(0, begin, count).copy_(attended.output);
    result.log_sum_exp.narrow(0, begin, count).copy_(attended.log_sum_exp);
  };
  for (int64_t sequence = 0; sequence + 1 < queries.first.numel(); ++sequence) {
    const int64_t begin = first[sequence], count = first[sequence + 1] - begin;
    std::vector<RowPage> pages;
    for (int64_t page = first_page[sequence]; page < first_page[sequence + 1]; ++page) {
      const at::Tensor keys = page_at(table, table.keys, page, table.key_stride);
      pages.push_back({keys, table.values.defined() ? page_at(table, table.values, page, table.value_stride) : keys});
    }
    if (queries.rows_of_token == 0) {
      if (count > 0) attend(begin, count, pages);
      continue;
    }
    const int64_t each = queries.rows_of_token;
    for (int64_t row = 0; row < count; row += each)
      attend(begin + row, each, without_last_rows(pages, (count - row) / each - 1));
  }
}

// What the kernels are told; without the tensors that are written.
cuda::PagedAttentionRun run_of(const BatchQueries& queries, const PageTable& table) {
  const at::Tensor& values = table.values.defined() ? table.values : table.keys;
  return {.queries = queries.rows.const_data_ptr(),
          .first_query = queries.first.const_data_ptr<int32_t>(),
          .first_page = table.first_page.const_data_ptr<int32_t>(),
          .keys = table.keys.const_data_ptr<int64_t>(),
          .values = values.const_data_ptr<int64_t>(),
          .rows = table.rows.const_data_ptr<int32_t>(),
          .sequences = queries.first.numel() - 1,
          .query_rows = queries.rows.size(0),
          .groups = table.groups,
          .width = table.width,
          .page_rows = table.page_rows,
          .pages = table.keys.numel(),
          .key_stride = table.key_stride,
          .value_stride = table.values.defined() ? table.value_stride : table.key_stride,
          .most_query_rows = queries.most_of_a_sequence,
          .rows_of_token = queries.rows_of_token,
          .backwards = queries.backwards,
          .same = !table.values.defined(),
          .int8_pages = table.type == at::kChar,
          .int8_heads = table.type == at::kByte,
          .bfloat16_queries = queries.rows.scalar_type() == at::kBFloat16,
          .device = queries.rows.device().index()};
}

}  // namespace

at::Tensor rows_of_groups(const at::Tensor& queries, int64_t groups) {
  const int64_t width = queries.size(2);
  return queries.reshape({queries.size(0), groups, -1, width})
      .transpose(1, 2)
      .reshape({-1, groups, width})
      .contiguous();
}

at::Tensor heads_of_groups(const at::Tensor& rows, int64_t sequences) {
  const int64_t width = rows.size(2);
  return rows.reshape({sequences, -1, rows.size(1), width}).transpose(1, 2).reshape({sequences, -1, width});
}

int64_t address_of(const at::Tensor& tensor) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(tensor.const_data_ptr()));
}

PageTable page_form(const at::Tensor& keys, const at::Tensor& values) {
  PageTable table;
  if (keys.dim() != 3 || values.dim() != 3) refuse_pages("keys and values of a page must be [rows, G, D]");
  const bool packed = is_int8_rows(keys);
  table.groups = keys.size(1);
  table.width = row_width(keys);
  table.type = packed ? at::kChar : keys.scalar_type();
  table.key_stride = packed ? table.width : keys.stride(0);
  table.value_stride = packed ? table.width : values.stride(0);
  return table;
}

PageTable cache_form(const at::Tensor& keys, const at::Tensor& values) {
  if (!is_int8_rows(keys)) return page_form(keys, values);
  PageTable table;
  table.groups = keys.size(1);
  table.width = row_width(keys);
  table.type = at::kByte;
  table.key_stride = keys.stride(0);
  table.value_stride = values.stride(0);
  return table;
}

PageTable page_table(std::span<const std::vector<RowPage>> sequences, at::Device device) {
  const auto with_pages = std::find_if(sequences.begin(), sequences.end(), [](const auto& x) { return !x.empty(); });
  PageTable table =
      with_pages == sequences.end() ? PageTable{} : page_form(with_pages->front().keys, with_pages->front().values);
  if (table.type != at::kChar) {
    table.key_stride = stride_of(sequences, &RowPage::keys, table.key_stride);
    table.value_stride = stride_of(sequences, &RowPage::values, table.value_stride);
  }
  std::vector<int32_t> first_page = {0}, rows;
  std::vector<int64_t> keys, values;
  table.page_rows = 1;
  for (const std::vector<RowPage>& pages : sequences) {
    for (const RowPage& page : pages) {
      check_page(page.keys, table.key_stride, table, "keys");
      check_page(page.values, table.value_stride, table, "values");
      if (page.keys.size(0) != page.values.size(0)) refuse_pages("a page's keys and values differ in rows");
      if (page.keys.device().type() != device.type()) refuse_pages("a page does not lie on " + device.str());
      keys.push_back(address_of(page.keys));
      values.push_back(address_of(page.values));
      rows.push_back(static_cast<int32_t>(page.keys.size(0)));
      table.page_rows = std::max(table.page_rows, page.keys.size(0));
    }
    first_page.push_back(static_cast<int32_t>(keys.size()));
  }
  table.first_page = at::tensor(first_page, at::kInt).to(device);
  table.keys = at::tensor(keys, at::kLong).to(device);
  if (keys != values && table.type == at::kChar) refuse_pages("packed rows must be keys and values at one time");
  if (keys != values) table.values = at::tensor(values, at::kLong).to(device);
  table.rows = at::tensor(rows, at::kInt).to(device);
  return table;
}

namespace {

// query_rows: of a sequence. rows_of_token: 1 where they are of a text.
bool has_kernel(const PageTable& table, at::Device device, int64_t query_rows, int64_t rows_of_token) {
  if (table.keys.defined() && table.keys.numel() == 0) return true;
  const bool packed = table.type == at::kChar, heads = table.type == at::kByte;
  if (heads && !table.values.defined()) return false;
  if (device.is_cpu()) return packed || heads || table.type == at::kBFloat16 || table.type == at::kFloat;
  const cuda::CudaKernels* kernels = device.is_cuda() ? cuda::kernels() : nullptr;
  if (!kernels || (!packed && !heads && table.type != at::kBFloat16) || table.key_stride % 8 != 0) return false;
  if (table.values.defined() && table.value_stride % 8 != 0) return false;
  const cuda::PagedAttentionRun run = {.sequences = 1,
                                       .groups = table.groups,
                                       .width = table.width,
                                       .page_rows = table.page_rows,
                                       .key_stride = table.key_stride,
                                       .value_stride = table.value_stride,
                                       .most_query_rows = query_rows,
                                       .rows_of_token = rows_of_token,
                                       .same = !table.values.defined(),
                                       .int8_pages = packed,
                                       .int8_heads = heads,
                                       .device = device.index()};
  return kernels->paged_attention_bytes(run) > 0;
}

}  // namespace

bool takes_paged_attention(const PageTable& table, at::Device device, int64_t query_rows) {
  return has_kernel(table, device, query_rows, 0);
}

bool takes_causal_queries(const PageTable& table, at::Device device) { return has_kernel(table, device, 1, 1); }

bool takes_int8_pages(int64_t width, at::Device device) {
  if (!device.is_cuda()) return false;
  PageTable table;
  table.groups = 1;
  table.width = table.key_stride = width;
  table.type = at::kChar;
  return takes_paged_attention(table, device);
}

int64_t paged_attention_bytes(const BatchQueries& queries, const PageTable& table) {
  const cuda::CudaKernels* kernels = queries.rows.is_cuda() ? cuda::kernels() : nullptr;
  return kernels ? kernels->paged_attention_bytes(run_of(queries, table)) : 0;
}

namespace {

// heads: what of a run is beside the attention itself; {}: nothing.
struct Heads {
  at::Tensor weight;
  int64_t count = 0, groups = 0;
  int64_t width() const { return weight.size(0) / groups; }
};

cuda::PagedAttentionRun run_of(const BatchQueries& queries, const PageTable& table, const Heads& heads) {
  cuda::PagedAttentionRun run = run_of(queries, table);
  if (!heads.weight.defined()) return run;
  run.head_weight = heads.weight.const_data_ptr();
  run.heads = heads.count;
  run.head_groups = heads.groups;
  run.head_width = heads.width();
  return run;
}

void attend(const BatchQueries& queries, const PageTable& table, double scale, BatchAttention& result,
            const Heads& heads) {
  check_pages(queries, table, result, heads.weight.defined() ? heads.width() : queries.rows.size(2));
  if (queries.rows.numel() == 0) return;
  if (table.keys.numel() == 0) {
    result.output.zero_();
    result.log_sum_exp.fill_(-std::numeric_limits<double>::infinity());
    return;
  }
  if (queries.rows.is_cpu()) return attend_on_cpu(queries, table, scale, result);
  if (!takes_paged_attention(table, queries.rows.device())) {
    refuse_pages("no kernel for " + std::string(c10::toString(table.type)) + " of width " +
                     std::to_string(table.width) + " on " + queries.rows.device().str(),
                 base::ErrorCode::unsupported);
  }
  const int64_t bytes = paged_attention_bytes(queries, table);
  if (bytes == 0) {
    refuse_pages("no kernel of this GPU for " + std::to_string(queries.most_of_a_sequence) + " query rows over " +
                     c10::toString(table.type) + " of width " + std::to_string(table.width),
                 base::ErrorCode::unsupported);
  }
  const at::Tensor& workspace = result.workspace;
  if (!workspace.defined() || workspace.device() != queries.rows.device() || !workspace.is_contiguous() ||
      static_cast<int64_t>(workspace.nbytes()) < bytes || address_of(workspace) % 16 != 0) {
    refuse_pages("the workspace must be " + std::to_string(bytes) + " bytes on the queries' device");
  }
  cuda::PagedAttentionRun run = run_of(queries, table, heads);
  run.output = result.output.mutable_data_ptr();
  run.log_sum_exp = result.log_sum_exp.mutable_data_ptr<float>();
  run.workspace = result.workspace.mutable_data_ptr();
  run.scale = static_cast<float>(scale);
  run.bfloat16_output = result.output.scalar_type() == at::kBFloat16;
  cuda::check(cuda::kernels()->paged_attention(run), "paged_attention");
}

BatchAttention attended(const BatchQueries& queries, const PageTable& table, double scale, at::ScalarType output_type,
                        const Heads& heads) {
  const at::TensorOptions options = queries.rows.options();
  const int64_t rows = queries.rows.size(0), groups = queries.rows.size(1);
  const int64_t width = heads.weight.defined() ? heads.width() : queries.rows.size(2);
  BatchAttention result = {
      at::empty({rows, groups, width}, options.dtype(output_type)),
      at::empty({rows, groups}, options.dtype(at::kFloat)),
      at::empty({std::max<int64_t>(1, paged_attention_bytes(queries, table))}, options.dtype(at::kByte))};
  attend(queries, table, scale, result, heads);
  return result;
}

bool attends_into_heads(const BatchQueries& queries, const PageTable& table, const Heads& heads) {
  const at::Tensor &rows = queries.rows, &weight = heads.weight;
  if (!rows.is_cuda() || !cuda::kernels() || table.values.defined() || table.keys.numel() == 0 ||
      weight.scalar_type() != at::kBFloat16 || !weight.is_contiguous() || address_of(weight) % 16 != 0)
    return false;
  cuda::PagedAttentionRun run = run_of(queries, table, heads);
  run.bfloat16_output = rows.scalar_type() == at::kBFloat16;
  return cuda::kernels()->attends_into_heads(run);
}

}  // namespace

void paged_attention(const BatchQueries& queries, const PageTable& table, double scale, BatchAttention& result) {
  attend(queries, table, scale, result, {});
}

BatchAttention paged_attention(const BatchQueries& queries, const PageTable& table, double scale,
                               at::ScalarType output_type) {
  return attended(queries, table, scale, output_type, {});
}

HeadAttention attention_into_heads(const BatchQueries& queries, const PageTable& table, double scale,
                                   const at::Tensor& weight, int64_t heads, int64_t groups) {
  const Heads into = {weight, heads, groups};
  const at::ScalarType type = queries.rows.scalar_type();
  if (attends_into_heads(queries, table, into)) {
    const BatchAttention found = attended(queries, table, scale, type, into);
    return {found.output.reshape({-1, heads, into.width()}), found.log_sum_exp};
  }
  const BatchAttention found = attended(queries, table, scale, type, {});
  return {head_product(found.output.reshape({-1, heads, queries.rows.size(2)}), weight, groups), found.log_sum_exp};
}

}  // namespace cepe::ops
