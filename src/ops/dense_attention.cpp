#include "ops/dense_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>

#include <limits>

#include "ops/cuda/loaded.h"
#include "ops/fused.h"

namespace cepe::ops {
namespace {

// [N, heads, width] whose heads stand side by side, as the copy engine reads it.
bool suits_copies(const at::Tensor& rows, at::Device device) {
  return is_plain(rows, at::kBFloat16, device) && rows.dim() == 3 && rows.numel() > 0 && rows.stride(2) == 1 &&
         rows.stride(1) == rows.size(2) && rows.stride(0) >= rows.size(1) * rows.size(2) && rows.stride(0) % 8 == 0 &&
         rows.size(0) < std::numeric_limits<int>::max() / 2 && is_aligned(rows);
}

int64_t quotient_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Parts of the keys: as many as leave little of the GPU idle in the last round, where one does.
int64_t parts_of(int64_t units, int64_t at_once, int64_t tiles) {
  constexpr int64_t most = 4, least_tiles = 8;  // what a part costs to begin and to merge
  constexpr double worth_it = 1.1;
  const auto used = [&](int64_t parts) {
    return static_cast<double>(units * parts) / static_cast<double>(quotient_up(units * parts, at_once) * at_once);
  };
  int64_t best = 1;
  for (int64_t parts = 2; parts <= most && tiles >= parts * least_tiles; ++parts)
    if (used(parts) > worth_it * used(best)) best = parts;
  return best;
}

PartialAttention attend_on_gpu(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                               double scale) {
  const int64_t rows = queries.size(0), heads = queries.size(1), width = queries.size(2);
  const auto device = queries.device().index();
  const int64_t units = quotient_up(rows, cuda::dense_attention_rows) * heads,
                tiles = quotient_up(keys.size(0), cuda::dense_attention_tile),
                parts = parts_of(units, cuda::kernels()->dense_attention_units(width, device), tiles);
  const at::Tensor output = at::empty({parts, rows, heads, width}, queries.options());
  const at::Tensor log_sum_exp = at::empty({parts, heads, rows}, queries.options().dtype(at::kFloat));
  cuda::check(cuda::kernels()->dense_attention({.queries = queries.const_data_ptr(),
                                                .keys = keys.const_data_ptr(),
                                                .values = values.const_data_ptr(),
                                                .output = output.mutable_data_ptr(),
                                                .log_sum_exp = log_sum_exp.mutable_data_ptr<float>(),
                                                .query_rows = rows,
                                                .key_rows = keys.size(0),
                                                .heads = heads,
                                                .groups = keys.size(1),
                                                .width = width,
                                                .query_stride = queries.stride(0),
                                                .key_stride = keys.stride(0),
                                                .value_stride = values.stride(0),
                                                .parts = parts,
                                                .scale = static_cast<float>(scale),
                                                .device = device}),
              "dense_attention");
  const auto part = [&](int64_t index) {
    return PartialAttention{output.select(0, index).transpose(0, 1), log_sum_exp.select(0, index)};
  };
  PartialAttention all = part(0);
  for (int64_t index = 1; index < parts; ++index) all = merge_attention(all, part(index));
  return all;
}

bool takes_kernel(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) {
  constexpr int64_t least_rows = 129;  // as many as one thread block has: LibTorch's flash is as fast
  const at::Device device = queries.device();
  return device.is_cuda() && cuda::kernels() && suits_copies(queries, device) && suits_copies(keys, device) &&
         suits_copies(values, device) && queries.size(0) >= least_rows && queries.size(1) % keys.size(1) == 0 &&
         queries.size(2) == keys.size(2) && values.sizes() == keys.sizes() &&
         queries.numel() <= cuda::most_elements / 4 &&
         cuda::kernels()->dense_attention_units(queries.size(2), device.index()) > 0;
}

}  // namespace

at::Tensor fold_groups(const at::Tensor& queries, int64_t groups) {
  const int64_t rows = queries.size(0), heads = queries.size(1), width = queries.size(2);
  return queries.reshape({rows, groups, heads / groups, width}).permute({1, 2, 0, 3}).reshape({groups, -1, width});
}

at::Tensor unfold_groups(const at::Tensor& folded, int64_t rows) {
  const int64_t groups = folded.size(0), width = folded.size(2);
  return folded.reshape({groups, -1, rows, width}).permute({2, 0, 1, 3}).reshape({rows, -1, width});
}

std::optional<PartialAttention> dense_attention(const at::Tensor& queries, const at::Tensor& keys,
                                                const at::Tensor& values, double scale) {
  if (!takes_kernel(queries, keys, values)) return std::nullopt;
  return attend_on_gpu(queries, keys, values, scale);
}

PartialAttention composed_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                    double scale) {
  const int64_t rows = queries.size(0), heads = queries.size(1), width = queries.size(2);
  const at::Tensor grouped = fold_groups(queries.to(at::kFloat), keys.size(1));
  const at::Tensor scores = at::matmul(grouped, keys.to(at::kFloat).permute({1, 2, 0})) * scale;
  const at::Tensor log_sum_exp = at::logsumexp(scores, {-1});
  const at::Tensor output =
      at::matmul(at::exp(scores - log_sum_exp.unsqueeze(-1)), values.to(at::kFloat).transpose(0, 1));
  return {output.reshape({heads, rows, width}), log_sum_exp.reshape({heads, rows})};
}

}  // namespace cepe::ops
