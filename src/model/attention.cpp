#include "model/attention.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "model/paged_cache.h"
#include "model/step_tables.h"
#include "ops/dense_attention.h"
#include "ops/device.h"
#include "ops/paged_attention.h"
#include "ops/row_attention.h"

namespace cepe::model {
namespace {

// Whether the row kernel serves: nothing differentiated, on the CPU. At any number of rows it is about twice as fast
// there as LibTorch's fused attention (docs/performance.md), and it reads keys and values in the type in which they are
// kept.
bool takes_row_kernel(const at::Tensor& queries, const at::Tensor& keys) {
  const bool differentiated = at::GradMode::is_enabled() && (queries.requires_grad() || keys.requires_grad());
  return queries.is_cpu() && !differentiated &&
         (keys.scalar_type() == at::kFloat || keys.scalar_type() == at::kBFloat16);
}

// Repeats key/value heads for kernels without grouped heads: [..., G, M, D] -> [..., H, M, D].
at::Tensor repeat_heads(const at::Tensor& x, int64_t heads) {
  const int64_t groups = x.size(-3);
  if (groups == heads) return x;
  std::vector<int64_t> shape = x.sizes().vec();
  shape.insert(shape.end() - 2, heads / groups);
  std::vector<int64_t> merged = x.sizes().vec();
  merged[merged.size() - 3] = heads;
  return x.unsqueeze(-3).expand(shape).reshape(merged);
}

// LibTorch's attention over [B, H, T, D] and [B, G, M, D]. Its kernels for bfloat16 on a GPU read grouped heads as they
// are; the others want one key/value head a query head.
at::Tensor attend_grouped(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, bool causal,
                          double scale) {
  const int64_t heads = queries.size(1);
  const bool grouped = queries.is_cuda() && queries.scalar_type() != at::kFloat;
  const auto spread = [&](const at::Tensor& x) { return grouped ? x : repeat_heads(x, heads); };
  return at::scaled_dot_product_attention(queries, spread(keys), spread(values), {}, 0.0, causal, scale,
                                          grouped && keys.size(1) != heads);
}

// queries [T, H, D] -> output [T, H, D] float32, log-sum-exp [T, H].
ops::PartialAttention page_attention(const at::Tensor& queries, std::span<const ops::RowPage> pages, double scale) {
  const at::Tensor folded = ops::rows_of_groups(queries.to(at::kFloat), pages.front().keys.size(1));
  const ops::RowAttention result = ops::row_attention(folded, pages, scale);
  const auto by_head = [&](const at::Tensor& x) { return ops::heads_of_groups(x, queries.size(0)); };
  return {by_head(result.output), by_head(result.log_sum_exp.unsqueeze(-1)).squeeze(-1)};
}

// Whether LibTorch's fused kernels serve, which also give their log-sum-exp: a newer GPU's, of 16-bit types, without a
// gradient and with heads that they are compiled for.
bool takes_fused_kernel(const at::Tensor& queries, const at::Tensor& keys) {
  const bool differentiated = at::GradMode::is_enabled() && (queries.requires_grad() || keys.requires_grad());
  return queries.is_cuda() && queries.element_size() == 2 && !differentiated && queries.size(-1) <= 256 &&
         queries.size(-1) % 8 == 0 && has_flash_attention(ops::compute_capability(queries.device()));
}

// Where ops/dense_attention.h has no kernel: cuDNN's is the fastest of LibTorch's on a Hopper GPU (twice flash at many
// rows), but it makes a plan for each new pair of lengths, which takes up to half a second: for round lengths only, of
// which there are few.
constexpr int64_t round_queries = 1024, round_keys = 4096, round_chunks = 64;
bool takes_cudnn(const at::Tensor& folded) {
  return folded.size(1) % round_queries == 0 && folded.size(-1) <= 128 && at::globalContext().userEnabledCuDNNSDP();
}

// LibTorch's attention over [B, H, T, D] and [B, G, M, D] without a mask. Its first choice is cuDNN's kernel; where
// these lengths are not `round`, flash instead.
at::Tensor attend_planned(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, bool causal,
                          double scale, bool round) {
  if (round || !takes_fused_kernel(queries, keys)) return attend_grouped(queries, keys, values, causal, scale);
  return std::get<0>(at::_scaled_dot_product_flash_attention(queries, keys, values, 0.0, causal, false, scale));
}

// Of LibTorch's fused kernels: [1, G, R, D] and [1, G, R].
ops::PartialAttention of_one(const at::Tensor& output, const at::Tensor& log_sum_exp) {
  return {output.squeeze(0), log_sum_exp.reshape({output.size(1), output.size(2)})};
}

// folded [G, R, D], keys and values [M, G, D] of its type -> output [G, R, D], log-sum-exp [G, R].
ops::PartialAttention fused_attention(const at::Tensor& folded, const at::Tensor& keys, const at::Tensor& values,
                                      double scale) {
  const at::Tensor queries = folded.unsqueeze(0), by_group = keys.transpose(0, 1).unsqueeze(0),
                   summed = values.transpose(0, 1).unsqueeze(0);
  if (keys.size(0) % round_keys == 0 && takes_cudnn(folded)) {
    const auto found = at::_scaled_dot_product_cudnn_attention(queries, by_group, summed, std::nullopt, true, 0.0,
                                                               false, false, scale);
    return of_one(std::get<0>(found), std::get<1>(found));
  }
  const auto found = at::_scaled_dot_product_flash_attention(queries, by_group, summed, 0.0, false, false, scale);
  return of_one(std::get<0>(found), std::get<1>(found));
}

// The last rows of a sequence, each behind all that stands before it: what all of them see by one attention, what they
// see of one another by a causal one, both without a mask in memory. Where there is a kernel for the first.
std::optional<at::Tensor> attend_behind(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                        double scale) {
  const int64_t rows = queries.size(0), before = keys.size(0) - rows;
  const auto seen_by_all = [&](const at::Tensor& x) { return x.narrow(0, 0, before); };
  if (!takes_fused_kernel(queries, keys)) return std::nullopt;
  const auto seen = ops::dense_attention(queries, seen_by_all(keys), seen_by_all(values), scale);
  if (!seen) return std::nullopt;
  const auto own = [&](const at::Tensor& x) {
    return x.narrow(0, x.size(0) - rows, rows).transpose(0, 1).unsqueeze(0);
  };
  const auto found =
      at::_scaled_dot_product_flash_attention(own(queries), own(keys), own(values), 0.0, true, false, scale);
  const ops::PartialAttention all = ops::merge_attention(*seen, of_one(std::get<0>(found), std::get<1>(found)));
  return all.output.transpose(0, 1).to(queries.scalar_type());
}

ops::PartialAttention row_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                    double scale) {
  return page_attention(queries, std::array{ops::RowPage{keys, values}}, scale);
}

// One sequence whose new rows are in the cache already. queries [T, H, D] -> [T, H, D].
at::Tensor attend_cached(const at::Tensor& queries, const BatchLayout& layout, const SequenceRows& sequence,
                         const LayerCache& cache, double scale, int64_t window) {
  const int64_t total = sequence.cached + sequence.count;
  if (sequence.count > 1 || !takes_row_kernel(queries, cache.keys)) {
    const std::vector<CacheRun> runs = cache_runs(layout, sequence, 0, total);
    const auto rows = [&](const at::Tensor& kept) { return gather_rows(kept, runs, queries.scalar_type()); };
    return attend_causal(queries, rows(cache.keys), rows(cache.values), scale, window);
  }
  const int64_t seen = window > 0 ? std::min(window, total) : total;
  std::vector<ops::RowPage> pages;  // as they are: nothing is copied
  for (const CacheRun& run : cache_runs(layout, sequence, total - seen, total))
    pages.push_back({cache.keys.narrow(0, run.slot, run.count), cache.values.narrow(0, run.slot, run.count)});
  return page_attention(queries, pages, scale).output.to(queries.scalar_type());
}

}  // namespace

bool has_flash_attention(int compute_capability) { return compute_capability >= 80; }

at::Tensor attend_all(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, double scale) {
  if (takes_row_kernel(queries, keys)) {
    return row_attention(queries, keys, values, scale).output.to(queries.scalar_type());
  }
  if (takes_fused_kernel(queries, keys)) {
    AttentionInParts attention(queries, scale);
    attention.read(keys, values);
    return attention.output();
  }
  const at::Tensor folded = ops::fold_groups(queries.to(keys.scalar_type()), keys.size(1)).unsqueeze(0);
  const at::Tensor attended = at::scaled_dot_product_attention(
      folded, keys.transpose(0, 1).unsqueeze(0), values.transpose(0, 1).unsqueeze(0), {}, 0.0, false, scale);
  return ops::unfold_groups(attended.squeeze(0), queries.size(0)).to(queries.scalar_type());
}

at::Tensor attend_causal(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, double scale,
                         int64_t window) {
  const int64_t rows = queries.size(0), total = keys.size(0), heads = queries.size(1);
  if (rows == 1) {
    const int64_t seen = window > 0 ? std::min(window, total) : total;
    return attend_all(queries, keys.narrow(0, total - seen, seen), values.narrow(0, total - seen, seen), scale);
  }
  const bool windowed = window > 0 && window < total;
  if (rows != total && !windowed) {
    if (const auto attended = attend_behind(queries, keys, values, scale)) return *attended;
  }
  std::optional<at::Tensor> mask;
  if (rows != total || windowed) {
    const at::Tensor own = at::arange(total - rows, total, queries.options().dtype(at::kLong)).unsqueeze(1);
    const at::Tensor other = at::arange(total, queries.options().dtype(at::kLong)).unsqueeze(0);
    at::Tensor visible = other <= own;  // [T, M]
    if (windowed) visible = visible & (other > own - window);
    mask = visible;
  }
  if (!mask) {
    const auto own = [&](const at::Tensor& x) { return x.to(queries.scalar_type()).transpose(0, 1).unsqueeze(0); };
    const at::Tensor attended = attend_planned(queries.transpose(0, 1).unsqueeze(0), own(keys), own(values), true,
                                               scale, rows % round_queries == 0);
    return attended.squeeze(0).transpose(0, 1);
  }
  const auto spread = [&](const at::Tensor& x) {
    return repeat_heads(x.to(queries.scalar_type()).transpose(0, 1), heads).unsqueeze(0);
  };
  const at::Tensor attended = at::scaled_dot_product_attention(queries.transpose(0, 1).unsqueeze(0), spread(keys),
                                                               spread(values), mask, 0.0, false, scale);
  return attended.squeeze(0).transpose(0, 1);
}

at::Tensor attend_batch(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, double scale) {
  const int64_t batch = queries.size(0), rows = queries.size(1), heads = queries.size(2), width = queries.size(3),
                groups = keys.size(2);
  const at::Tensor folded = queries.reshape({batch, rows, groups, heads / groups, width})
                                .permute({0, 2, 3, 1, 4})
                                .reshape({batch, groups, -1, width});
  const at::Tensor attended =
      attend_grouped(folded, keys.transpose(1, 2), values.transpose(1, 2), false, scale);  // [B, G, H/G * T, D]
  return attended.reshape({batch, groups, heads / groups, rows, width})
      .permute({0, 3, 1, 2, 4})
      .reshape({batch, rows, heads, width});
}

at::Tensor attend_chunks(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                         const at::Tensor& mask, double scale) {
  if (!mask.defined()) {
    return attend_planned(queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), false, scale,
                          queries.size(0) % round_chunks == 0)
        .transpose(1, 2);
  }
  const int64_t heads = queries.size(2);
  const at::Tensor visible = mask.unsqueeze(1).unsqueeze(1);  // [n, 1, 1, S]
  const at::Tensor attended =
      at::scaled_dot_product_attention(queries.transpose(1, 2), repeat_heads(keys.transpose(1, 2), heads),
                                       repeat_heads(values.transpose(1, 2), heads), visible, 0.0, false, scale);
  return attended.transpose(1, 2);
}

namespace {

// Tokens of several sequences, placed by tables on the device. queries [B, H, D], keys [B, G, D] -> [B, H, D].
at::Tensor step_attention(const at::Tensor& queries, const at::Tensor& keys, const BatchLayout& layout,
                          const LayerCache& cache, double scale) {
  const StepTables& step = *layout.step;
  const int64_t groups = keys.size(1);
  const ops::BatchQueries asked = {ops::rows_of_groups(queries, groups), step.cache_queries, step.most_cache_rows,
                                   step.rows_of_token};
  return ops::heads_of_groups(
      ops::paged_attention(asked, step.cache.at(cache.layer), scale, queries.scalar_type()).output, queries.size(0));
}

}  // namespace

at::Tensor self_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                          const BatchLayout& layout, const LayerCache& cache, double scale, int64_t window) {
  if (layout.step) return step_attention(queries, keys, layout, cache, scale);
  const int64_t length = layout.uniform_length;
  if (length > 0 && layout.sequences.size() > 1 && !cache.keys.defined() && (window <= 0 || window >= length)) {
    const auto batched = [&](const at::Tensor& x) {
      return x.reshape({-1, length, x.size(1), x.size(2)}).transpose(1, 2);
    };
    return attend_grouped(batched(queries), batched(keys), batched(values), true, scale)
        .transpose(1, 2)
        .reshape({-1, queries.size(1), queries.size(2)});
  }
  std::vector<at::Tensor> outputs;
  for (const SequenceRows& sequence : layout.sequences) {
    const auto own = [&](const at::Tensor& x) { return x.narrow(0, sequence.first, sequence.count); };
    outputs.push_back(cache.keys.defined() ? attend_cached(own(queries), layout, sequence, cache, scale, window)
                                           : attend_causal(own(queries), own(keys), own(values), scale, window));
  }
  return outputs.size() == 1 ? outputs.front() : at::cat(outputs, 0);
}

AttentionInParts::AttentionInParts(at::Tensor queries, double scale) : queries_(std::move(queries)), scale_(scale) {}

void AttentionInParts::read(const at::Tensor& keys, const at::Tensor& values) {
  if (takes_row_kernel(queries_, keys)) {
    const ops::PartialAttention by_row = row_attention(queries_, keys, values, scale_);
    return add({by_row.output.transpose(0, 1), by_row.log_sum_exp.transpose(0, 1)});
  }
  const at::Tensor queries = queries_.to(keys.scalar_type());
  if (!takes_fused_kernel(queries, keys)) return add(ops::composed_attention(queries, keys, values, scale_));
  if (const auto part = ops::dense_attention(queries, keys, values, scale_)) return add(*part);
  if (!folded_.defined()) folded_ = ops::fold_groups(queries, keys.size(1));
  const int64_t rows = keys.size(0), round = takes_cudnn(folded_) ? rows / round_keys * round_keys : 0;
  const auto part = [&](int64_t first, int64_t count) {
    if (count > 0) add(fused_attention(folded_, keys.narrow(0, first, count), values.narrow(0, first, count), scale_));
  };
  part(0, round);
  part(round, rows - round);
}

void AttentionInParts::add(const ops::PartialAttention& part) {
  total_ = total_.output.defined() ? ops::merge_attention(total_, part) : part;
}

at::Tensor AttentionInParts::output() const {
  return ops::unfold_groups(total_.output.to(queries_.scalar_type()), queries_.size(0));
}

at::Tensor AttentionInParts::log_sum_exp() const {
  return ops::unfold_groups(total_.log_sum_exp.unsqueeze(-1), queries_.size(0)).squeeze(-1);
}

}  // namespace cepe::model
