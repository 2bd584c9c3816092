#include "ops/token_attention.h"

#include <ATen/ops/empty.h>

#include <optional>

#include "ops/cuda/loaded.h"
#include "ops/fused.h"
#include "ops/rotary.h"

namespace cepe::ops {
namespace {

// Nothing, or what the kernel is told, without the output.
std::optional<cuda::TokenAttentionRun> run_of(const TokenHeads& heads, const PageTable& table, double scale) {
  const at::Device device = heads.queries.device();
  const cuda::CudaKernels* kernels = device.is_cuda() ? cuda::kernels() : nullptr;
  const at::Tensor &queries = heads.queries, &keys = heads.keys, &values = heads.values;
  const auto suits = [&](const at::Tensor& x) { return suits_kernels(x, at::kBFloat16, device) && x.stride(2) == 1; };
  if (!kernels || !suits(queries) || !suits(keys) || !suits(values) || table.type != at::kBFloat16 ||
      !table.values.defined() || !is_plain_dense(heads.cos, at::kFloat, device) ||
      !is_plain_dense(heads.sin, at::kFloat, device) || !is_plain_dense(heads.cache_keys, at::kBFloat16, device) ||
      !is_plain_dense(heads.cache_values, at::kBFloat16, device) || queries.numel() == 0 ||
      queries.numel() > cuda::most_elements)
    return std::nullopt;
  cuda::TokenAttentionRun run = {.tokens = {.queries = queries.const_data_ptr(),
                                            .keys = keys.const_data_ptr(),
                                            .values = values.const_data_ptr(),
                                            .rotated = nullptr,
                                            .cache_keys = heads.cache_keys.mutable_data_ptr(),
                                            .cache_values = heads.cache_values.mutable_data_ptr(),
                                            .slots = heads.slots.const_data_ptr<int64_t>(),
                                            .cos = heads.cos.const_data_ptr<float>(),
                                            .sin = heads.sin.const_data_ptr<float>(),
                                            .rows = queries.size(0),
                                            .heads = queries.size(1),
                                            .groups = keys.size(1),
                                            .width = queries.size(2),
                                            .half = heads.cos.size(1),
                                            .query_row = queries.stride(0),
                                            .query_head = queries.stride(1),
                                            .key_row = keys.stride(0),
                                            .key_head = keys.stride(1),
                                            .value_row = values.stride(0),
                                            .value_head = values.stride(1),
                                            .bfloat16 = true,
                                            .device = device.index()},
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
                                           .bfloat16_output = true,
                                           .device = device.index()},
                                 .device = device.index()};
  if (!kernels->takes_token_attention(run)) return std::nullopt;
  return run;
}

}  // namespace

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
