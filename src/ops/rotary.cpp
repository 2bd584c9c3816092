#include "ops/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/cpu/kernels.h"
#include "ops/cuda/loaded.h"
#include "ops/fused.h"
#include "ops/int8_rows.h"
#include "ops/rotary_cache_rows.h"

namespace cepe::ops {
namespace {

bool rotation_fits(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, at::Device device = at::kCPU) {
  if (x.dim() != 3 || cos.dim() != 2 || cos.size(0) != x.size(0) || sin.sizes() != cos.sizes()) return false;
  return suits_kernels(x, x.scalar_type(), device) && x.stride(2) == 1 && 2 * cos.size(1) <= x.size(2) &&
         is_plain_dense(cos, at::kFloat, device) && is_plain_dense(sin, at::kFloat, device);
}
bool rotation_fits_on_gpu(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return x.numel() > 0 && x.numel() <= cuda::most_elements && rotation_fits(x, cos, sin, x.device());
}

// x may be a slice of fused q, k, v: any stride between rows and heads.
at::Tensor rotate_on_cpu(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool backwards) {
  at::Tensor y = empty_output(x.sizes(), x.scalar_type());
  const cpu::RotaryRows run{.x = x.const_data_ptr(),
                            .y = y.mutable_data_ptr(),
                            .cos = cos.const_data_ptr<float>(),
                            .sin = sin.const_data_ptr<float>(),
                            .heads = x.size(1),
                            .width = x.size(2),
                            .half = cos.size(1),
                            .row_stride = x.stride(0),
                            .head_stride = x.stride(1),
                            .backwards = backwards};
  const auto& table = cpu::kernels();
  const auto kernel = x.scalar_type() == at::kFloat ? table.rotate_float : table.rotate_bfloat16;
  over_rows(x.size(0), run.heads * run.width, [&](int64_t begin, int64_t end) { kernel(run, begin, end); });
  return y;
}

at::Tensor rotate_on_gpu(const cuda::CudaKernels& kernels, const at::Tensor& x, const at::Tensor& cos,
                         const at::Tensor& sin, bool backwards) {
  at::Tensor y = at::empty(x.sizes(), x.options());
  cuda::check(kernels.rotate({.x = x.const_data_ptr(),
                              .y = y.mutable_data_ptr(),
                              .cos = cos.const_data_ptr<float>(),
                              .sin = sin.const_data_ptr<float>(),
                              .rows = x.size(0),
                              .heads = x.size(1),
                              .width = x.size(2),
                              .half = cos.size(1),
                              .row_stride = x.stride(0),
                              .head_stride = x.stride(1),
                              .backwards = backwards,
                              .bfloat16 = x.scalar_type() == at::kBFloat16,
                              .device = x.device().index()}),
              "rotate");
  return y;
}

at::Tensor rotate_composed(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = cos.size(-1);
  const at::Tensor c = cos.unsqueeze(1).to(x.scalar_type());
  const at::Tensor s = sin.unsqueeze(1).to(x.scalar_type());
  const at::Tensor x1 = x.narrow(-1, 0, half);
  const at::Tensor x2 = x.narrow(-1, half, half);
  const at::Tensor rotated1 = x1 * c - x2 * s;
  const at::Tensor rotated2 = x2 * c + x1 * s;
  const int64_t rest = x.size(-1) - 2 * half;
  if (rest == 0) return at::cat({rotated1, rotated2}, -1);
  return at::cat({rotated1, rotated2, x.narrow(-1, 2 * half, rest)}, -1);
}

at::Tensor turn(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool backwards);

// A rotation's transpose is the rotation back.
struct Turn : torch::autograd::Function<Turn> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin, bool backwards) {
    context->save_for_backward({cos, sin});
    context->saved_data["backwards"] = backwards;
    return turn(x, cos, sin, backwards);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor& gradient = gradients[0];
    return {turn(gradient.stride(2) == 1 ? gradient : gradient.contiguous(), saved[0], saved[1],
                 !context->saved_data["backwards"].toBool()),
            {},
            {},
            {}};
  }
};

at::Tensor turn(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool backwards) {
  const bool on_cpu = rotation_fits(x, cos, sin);
  const cuda::CudaKernels* gpu = x.is_cuda() && rotation_fits_on_gpu(x, cos, sin) ? cuda::kernels() : nullptr;
  if (!on_cpu && !gpu) return rotate_composed(x, cos, backwards ? -sin : sin);
  if (is_differentiated(x)) return Turn::apply(x, cos, sin, backwards);
  return on_cpu ? rotate_on_cpu(x, cos, sin, backwards) : rotate_on_gpu(*gpu, x, cos, sin, backwards);
}

}  // namespace

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return turn(x, cos, sin, false);
}

namespace {

// What the kernel of a cache in 8 bits wants besides.
bool fits_int8_cache(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& cos,
                     const at::Tensor& sin, const at::Tensor& cache) {
  const auto is = [](const at::Tensor& x, uintptr_t bytes) {
    return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % bytes == 0;
  };
  const auto is_head = [&](const at::Tensor& x) { return is(x, 8) && x.stride(0) % 4 == 0 && x.stride(1) % 4 == 0; };
  return queries.scalar_type() == at::kBFloat16 && queries.size(2) <= cuda::widest_int8_head &&
         queries.size(2) % 4 == 0 && cos.size(1) % 4 == 0 && is_head(queries) && is_head(keys) && is_head(values) &&
         is(cos, 16) && is(sin, 16) && is_int8_heads(cache, keys.size(1), keys.size(2)) &&
         cache.device() == queries.device() && is(cache, 4);
}

bool fits_into_cache(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& cos,
                     const at::Tensor& sin, const at::Tensor& slots, const at::Tensor& cache_keys,
                     const at::Tensor& cache_values) {
  const at::ScalarType type = queries.scalar_type();
  const auto fits = [&](const at::Tensor& cache) {
    return is_int8_rows(cache) ? fits_int8_cache(queries, keys, values, cos, sin, cache)
                               : is_plain_dense(cache, type, queries.device());
  };
  return rotation_fits_on_gpu(queries, cos, sin) && rotation_fits(keys, cos, sin, queries.device()) &&
         suits_kernels(values, type, queries.device()) && keys.scalar_type() == type && values.stride(2) == 1 &&
         values.sizes() == keys.sizes() && keys.size(2) == queries.size(2) && slots.is_contiguous() &&
         slots.device() == queries.device() && slots.scalar_type() == at::kLong && fits(cache_keys) &&
         fits(cache_values) && cache_keys.strides() == cache_values.strides() &&
         cache_keys.scalar_type() == cache_values.scalar_type();
}

}  // namespace

at::Tensor rotate_into_cache(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                             const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& slots,
                             const at::Tensor& cache_keys, const at::Tensor& cache_values) {
  const cuda::CudaKernels* gpu = queries.is_cuda() ? cuda::kernels() : nullptr;
  if (!gpu || !fits_into_cache(queries, keys, values, cos, sin, slots, cache_keys, cache_values)) {
    cache_keys.index_copy_(0, slots, as_cached(rotate(keys, cos, sin), cache_keys));
    cache_values.index_copy_(0, slots, as_cached(values, cache_values));
    return rotate(queries, cos, sin);
  }
  at::Tensor rotated = at::empty(queries.sizes(), queries.options());
  cuda::RotaryCacheRows run = rotary_cache_rows(queries, keys, values, cos, sin, slots, cache_keys, cache_values);
  run.rotated = rotated.mutable_data_ptr();
  cuda::check(gpu->rotate_into_cache(run), "rotate_into_cache");
  return rotated;
}

}  // namespace cepe::ops
