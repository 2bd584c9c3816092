#include "ops/token_attention.h"

#include <ATen/ops/empty.h>

#include <array>
#include <optional>

#include "ops/cuda/loaded.h"
#include "ops/fused.h"
#include "ops/int8_rows.h"
#include "ops/rotary.h"
#include "ops/rotary_cache_rows.h"

namespace cepe::ops {
namespace {

// Whether sizes and types go together. What the two operations would refuse is left to them to refuse.
bool agree(const TokenHeads& heads, const PageTable& table) {
  const at::Device device = heads.queries.device();
  const auto is = [&](const at::Tensor& x, at::ScalarType type, int64_t size) {
    return x.defined() && x.device() == device && x.scalar_type() == type && x.is_contiguous() && x.numel() == size;
  };
  const auto is_dense = [&](const at::Tensor& x, at::ScalarType type) {
    return x.defined() && is_plain_dense(x, type, device);
  };
  const auto is_rows = [&](const at::Tensor& x) {
    return x.defined() && x.dim() == 3 && is_plain(x, at::kBFloat16, device) && x.stride(2) == 1;
  };
  if (!is_rows(heads.queries) || !is_rows(heads.keys) || !is_rows(heads.values) || heads.cos.dim() != 2 ||
      heads.cache_keys.dim() != 3 || (table.type != at::kBFloat16 && table.type != at::kByte) || table.groups <= 0 ||
      table.page_rows <= 0)
    return false;
  const int64_t rows = heads.queries.size(0), width = heads.queries.size(2), pages = table.keys.numel();
  const std::array<int64_t, 3> own = {rows, table.groups, width},
                               kept = {heads.cache_keys.size(0), table.groups, width};
  const auto is_cache = [&](const at::Tensor& cache) {
    if (table.type == at::kByte)
      return cache.defined() && cache.device() == device && is_int8_heads(cache, table.groups, width);
    return is_dense(cache, at::kBFloat16) && cache.sizes() == at::IntArrayRef(kept);
  };
  return width == table.width && heads.queries.size(1) >= table.groups && heads.queries.size(1) % table.groups == 0 &&
         heads.keys.sizes() == at::IntArrayRef(own) && heads.values.sizes() == heads.keys.sizes() &&
         is_cache(heads.cache_keys) && is_cache(heads.cache_values) &&
         heads.cache_values.strides() == heads.cache_keys.strides() && is_dense(heads.cos, at::kFloat) &&
         is_dense(heads.sin, at::kFloat) && heads.cos.size(0) == rows && heads.sin.sizes() == heads.cos.sizes() &&
         2 * heads.cos.size(1) <= width && is(heads.slots, at::kLong, rows) &&
         is(table.first_page, at::kInt, rows + 1) && is(table.rows, at::kInt, pages) &&
         is(table.keys, at::kLong, pages) && is(table.values, at::kLong, pages);
}

// Nothing, or what the kernel is told, without the output.
std::optional<cuda::TokenAttentionRun> run_of(const TokenHeads& heads, const PageTable& table, double scale) {
  const at::Device device = heads.queries.device();
  const cuda::CudaKernels* kernels = device.is_cuda() ? cuda::kernels() : nullptr;
  const at::Tensor& queries = heads.queries;
  if (!kernels || !agree(heads, table) || queries.numel() == 0 || queries.numel() > cuda::most_elements)
    return std::nullopt;
  cuda::TokenAttentionRun run = {.tokens = rotary_cache_rows(queries, heads.keys, heads.values, heads.cos, heads.sin,
                                                             heads.slots, heads.cache_keys, heads.cache_values),
                                 .pages = {.first_page = table.first_page.const_data_ptr<int32_t>(),
                                           .keys = table.keys.const_data_ptr<int64_t>(),
                                           .values = table.values.const_data_ptr<int64_t>(),
                                           .rows = table.rows.const_data_ptr<int32_t>(),
                                           .sequences = queries.size(0),
                                           .groups = table.groups,
                                           .width = table.width,
                                           .page_rows = table.page_rows,
                                           .pages = table.keys.numel(),
                                           .key_stride = table.key_stride,
                                           .value_stride = table.value_stride,
                                           .scale = static_cast<float>(scale),
                                           .int8_heads = table.type == at::kByte,
                                           .bfloat16_output = true,
                                           .device = device.index()},
                                 .device = device.index()};
  if (!kernels->takes_token_attention(run)) return std::nullopt;
  return run;
}

}  // namespace

bool has_token_kernel(const TokenHeads& heads, const PageTable& table) { return run_of(heads, table, 1).has_value(); }

at::Tensor token_attention(const TokenHeads& heads, const PageTable& table, const at::Tensor& first, double scale) {
  if (std::optional<cuda::TokenAttentionRun> run = run_of(heads, table, scale)) {
    at::Tensor output = at::empty(heads.queries.sizes(), heads.queries.options());
    run->pages.output = output.mutable_data_ptr();
    cuda::check(cuda::kernels()->token_attention(*run), "token_attention");
    return output;
  }
  const int64_t groups = heads.keys.size(1);
  const at::Tensor rotated = rotate_into_cache(heads.queries, heads.keys, heads.values, heads.cos, heads.sin,
                                               heads.slots, heads.cache_keys, heads.cache_values);
  const BatchQueries asked = {rows_of_groups(rotated, groups), first, heads.queries.size(1) / groups};
  return heads_of_groups(paged_attention(asked, table, scale, heads.queries.scalar_type()).output,
                         heads.queries.size(0));
}

}  // namespace cepe::ops
