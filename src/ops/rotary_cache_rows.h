// Tensors of a rotation into a cache as its kernels are told of them (rotate_into_cache, token_attention).
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/cuda/kernels.h"
#include "ops/int8_rows.h"

namespace cepe::ops {

// queries [N, H, D], keys and values [N, G, D], cos and sin [N, R/2], slots [N], the cache [slots, G, D] or packed, as
// rotary.h has them; what a kernel asks of types and strides is its caller's to check. Without `rotated`.
inline cuda::RotaryCacheRows rotary_cache_rows(const at::Tensor& queries, const at::Tensor& keys,
                                               const at::Tensor& values, const at::Tensor& cos, const at::Tensor& sin,
                                               const at::Tensor& slots, const at::Tensor& cache_keys,
                                               const at::Tensor& cache_values) {
  return {.queries = queries.const_data_ptr(),
          .keys = keys.const_data_ptr(),
          .values = values.const_data_ptr(),
          .rotated = nullptr,
          .cache_keys = cache_keys.mutable_data_ptr(),
          .cache_values = cache_values.mutable_data_ptr(),
          .slots = slots.const_data_ptr<int64_t>(),
          .cos = cos.const_data_ptr<float>(),
          .sin = sin.const_data_ptr<float>(),
          .rows = queries.size(0),
          .heads = queries.size(1),
          .groups = keys.size(1),
          .width = queries.size(2),
          .half = cos.size(1),
          .query_row = queries.stride(0),
          .query_head = queries.stride(1),
          .key_row = keys.stride(0),
          .key_head = keys.stride(1),
          .value_row = values.stride(0),
          .value_head = values.stride(1),
          .cache_row = cache_keys.stride(0),
          .bfloat16 = queries.scalar_type() == at::kBFloat16,
          .int8_cache = is_int8_rows(cache_keys),
          .device = queries.device().index()};
}

}  // namespace cepe::ops
