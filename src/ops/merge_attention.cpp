#include "ops/merge_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logaddexp.h>

#include "base/error.h"
#include "ops/cuda/loaded.h"
#include "ops/fused.h"

namespace cepe::ops {
namespace {

void check_parts(const PartialAttention& part, const PartialAttention& other) {
  const bool agree = part.output.sizes() == other.output.sizes() && part.output.dim() == part.log_sum_exp.dim() + 1 &&
                     part.output.sizes().slice(0, part.output.dim() - 1) == part.log_sum_exp.sizes() &&
                     part.log_sum_exp.sizes() == other.log_sum_exp.sizes();
  if (!agree) {
    throw base::Error(base::ErrorCode::invalid_argument,
                      "merge_attention: outputs must be of one shape [..., D], log-sum-exps [...]");
  }
}

// Groups that stand side by side in each row of memory: those of [G, T, D], where it is a view of [T, G, D]; 1 where
// the output is contiguous, 0 where it is neither.
int64_t groups_of(const at::Tensor& output) {
  if (output.is_contiguous()) return 1;
  return output.dim() == 3 && output.transpose(0, 1).is_contiguous() ? output.size(0) : 0;
}

bool is_ready(const PartialAttention& part, at::Device device) {
  return is_plain(part.output, part.output.scalar_type(), device) &&
         is_plain_dense(part.log_sum_exp, at::kFloat, device);
}

PartialAttention merge_on_gpu(const cuda::CudaKernels& kernels, const PartialAttention& first,
                              const PartialAttention& second) {
  // In the order of the first one's memory.
  PartialAttention merged = {at::empty_like(first.output, at::kFloat), at::empty_like(first.log_sum_exp)};
  const auto part = [](const PartialAttention& from) {
    return cuda::MergeAttentionRun::Part{from.output.const_data_ptr(), from.log_sum_exp.const_data_ptr<float>(),
                                         from.output.scalar_type() == at::kBFloat16};
  };
  cuda::check(kernels.merge_attention({.first = part(first),
                                       .second = part(second),
                                       .output = merged.output.mutable_data_ptr<float>(),
                                       .log_sum_exp = merged.log_sum_exp.mutable_data_ptr<float>(),
                                       .rows = first.log_sum_exp.numel(),
                                       .width = first.output.size(-1),
                                       .groups = groups_of(first.output),
                                       .device = first.output.device().index()}),
              "merge_attention");
  return merged;
}

}  // namespace

PartialAttention merge_attention(const PartialAttention& first, const PartialAttention& second) {
  check_parts(first, second);
  const at::Device device = first.output.device();
  const cuda::CudaKernels* kernels = device.is_cuda() ? cuda::kernels() : nullptr;
  if (kernels && first.output.numel() > 0 && first.output.numel() <= cuda::most_elements && is_ready(first, device) &&
      is_ready(second, device) && groups_of(first.output) > 0 && groups_of(first.output) == groups_of(second.output)) {
    return merge_on_gpu(*kernels, first, second);
  }
  const at::Tensor total = at::logaddexp(first.log_sum_exp, second.log_sum_exp);
  const auto share = [&](const PartialAttention& part) {
    // -infinity minus itself is no number; exp(-infinity) is the zero that is meant.
    const at::Tensor weight = at::exp(part.log_sum_exp - total).masked_fill(part.log_sum_exp.isneginf(), 0);
    return part.output.to(at::kFloat) * weight.unsqueeze(-1);
  };
  return {share(first) + share(second), total};
}

}  // namespace cepe::ops
