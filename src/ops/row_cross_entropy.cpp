#include "ops/row_cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>

#include <limits>

#include "ops/chunked_loss.h"
#include "ops/cuda/loaded.h"

namespace cepe::ops {
namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

void losses_on_gpu(const cuda::CudaKernels& kernels, const at::Tensor& logits, const at::Tensor& labels,
                   const at::Tensor& scale, double cap, bool wants_gradient, const at::Tensor& losses) {
  cuda::check(kernels.cross_entropy({.logits = logits.mutable_data_ptr(),
                                     .labels = labels.const_data_ptr<int64_t>(),
                                     .scale = scale.const_data_ptr<float>(),
                                     .losses = losses.mutable_data_ptr<float>(),
                                     .rows = logits.size(0),
                                     .vocabulary = logits.size(1),
                                     .stride = logits.stride(0),
                                     .cap = static_cast<float>(cap),
                                     .gradient = wants_gradient,
                                     .bfloat16 = logits.scalar_type() == at::kBFloat16,
                                     .device = logits.device().index()}),
              "cross_entropy");
}

void composed(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& scale, double cap,
              bool wants_gradient, const at::Tensor& losses) {
  at::Tensor wide = logits.to(at::kFloat), bent;
  if (cap > 0) {
    bent = at::tanh(wide / cap);
    wide = bent * cap;
  }
  const at::Tensor ignored = labels == ignored_label;
  const at::Tensor inside = (labels >= 0) & (labels < logits.size(1));
  const at::Tensor columns = labels.clamp(0, logits.size(1) - 1).unsqueeze(1);
  at::Tensor log_probabilities = at::log_softmax(wide, -1);
  const at::Tensor taken = -log_probabilities.gather(1, columns).squeeze(1);
  losses.copy_(at::where(inside, taken, not_a_number).masked_fill_(ignored, 0));
  if (!wants_gradient) return;
  at::Tensor gradient = log_probabilities.exp_();
  gradient.scatter_add_(1, columns, at::empty(columns.sizes(), gradient.options()).fill_(-1));
  if (cap > 0) gradient.mul_(1 - bent.square());
  gradient.mul_(at::where(inside, scale, not_a_number).unsqueeze(1)).masked_fill_(ignored.unsqueeze(1), 0);
  logits.copy_(gradient);
}

}  // namespace

at::Tensor logits_buffer(int64_t rows, int64_t vocabulary, const at::TensorOptions& options) {
  const int64_t multiple = options.device().is_cuda() ? 8 : 1;  // 16 bytes of bfloat16
  const int64_t stride = (vocabulary + multiple - 1) / multiple * multiple;
  return at::empty({rows, stride}, options).narrow(1, 0, vocabulary);
}

void row_cross_entropy(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& scale, double cap,
                       bool wants_gradient, const at::Tensor& losses) {
  if (logits.size(0) == 0) return;
  const cuda::CudaKernels* gpu = logits.is_cuda() ? cuda::kernels() : nullptr;
  if (gpu) return losses_on_gpu(*gpu, logits, labels, scale, cap, wants_gradient, losses);
  composed(logits, labels, scale, cap, wants_gradient, losses);
}

}  // namespace cepe::ops
