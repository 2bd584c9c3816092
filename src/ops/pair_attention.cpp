#include "ops/pair_attention.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "base/half.h"
#include "ops/cpu/power_table.h"

namespace cepe::ops {
namespace {

constexpr int64_t least_query_rows = 16;
constexpr int64_t bytes_a_worker = int64_t{64} << 10;
constexpr int64_t most_blocks = 3;  // of query rows that the kernel takes together
constexpr float no_score = -std::numeric_limits<float>::infinity();

struct PairShape {
  int64_t queries, groups, key_width, value_width, lanes, blocks;
  int64_t rows() const { return groups * blocks * lanes; }
  // Of a query row and group, among the blocks of all groups; and its lane.
  int64_t block_of(int64_t query, int64_t group) const { return group * blocks + query / lanes; }
  int64_t lane_of(int64_t query) const { return query % lanes; }
};

// [G, blocks, D / 2, lanes] of queries [R, G, D].
at::Tensor packed_queries(const at::Tensor& queries, const PairShape& shape) {
  const at::Tensor dense = queries.contiguous();
  const float* from = dense.const_data_ptr<float>();
  at::Tensor packed = at::zeros({shape.rows() * shape.key_width / 2}, at::kInt);
  for (int64_t query = 0; query < shape.queries; ++query) {
    for (int64_t group = 0; group < shape.groups; ++group) {
      uint32_t* to =
          static_cast<uint32_t*>(packed.data_ptr()) + shape.block_of(query, group) * shape.key_width / 2 * shape.lanes;
      for (int64_t i = 0; i < shape.key_width / 2; ++i, from += 2) {
        to[i * shape.lanes + shape.lane_of(query)] =
            base::float_to_bfloat16(from[0]) | uint32_t{base::float_to_bfloat16(from[1])} << 16;
      }
    }
  }
  return packed;
}

// A thread's state and scratch, in tensors for their alignment: vectors of 64 bytes that lie across two lines of the
// cache cost twice.
struct PairWorker {
  at::Tensor output, maximum, denominator, scores, weights, values, keys;

  explicit PairWorker(const PairShape& shape)
      : output(at::zeros({shape.rows() * shape.value_width}, at::kFloat)),
        maximum(at::full({shape.rows()}, no_score, at::kFloat)),
        denominator(at::zeros({shape.rows()}, at::kFloat)),
        scores(at::empty({cpu::pair_block * most_blocks * shape.lanes}, at::kFloat)),
        weights(at::empty({cpu::pair_block / 2 * most_blocks * shape.lanes}, at::kInt)),
        values(at::empty({cpu::pair_block / 2 * shape.value_width}, at::kInt)),
        keys(at::empty({cpu::pair_block * shape.key_width}, at::kBFloat16)) {}
};

template <class T>
T* words_of(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

// Rows [begin, end) of all pages taken as one run.
void attend_pairs_in(const cpu::PairKernel& kernel, const PairShape& shape, std::span<const RowPage> pages,
                     const at::Tensor& queries, double scale, int64_t begin, int64_t end, PairWorker& worker) {
  const cpu::PairAttentionJob job = {.groups = shape.groups,
                                     .blocks = shape.blocks,
                                     .key_width = shape.key_width,
                                     .value_width = shape.value_width,
                                     .scale = static_cast<float>(scale),
                                     .query = words_of<uint32_t>(queries),
                                     .output = words_of<float>(worker.output),
                                     .maximum = words_of<float>(worker.maximum),
                                     .denominator = words_of<float>(worker.denominator),
                                     .scores = words_of<float>(worker.scores),
                                     .weights = words_of<uint32_t>(worker.weights),
                                     .values = words_of<uint32_t>(worker.values),
                                     .keys = words_of<uint16_t>(worker.keys)};
  int64_t first = 0;
  for (const RowPage& page : pages) {
    const int64_t rows = page.keys.size(0);
    const int64_t low = std::max(begin - first, int64_t{0}), high = std::min(end - first, rows);
    first += rows;
    if (low >= high) continue;
    const auto at = [&](const at::Tensor& x) {
      return static_cast<const uint16_t*>(x.const_data_ptr()) + low * x.stride(0);
    };
    kernel.attend(job, {at(page.keys), at(page.values), page.keys.stride(0), page.values.stride(0), high - low, nullptr,
                        nullptr});
  }
}

// One (query, group): the workers' sums brought to one maximum, divided by the sum of their denominators.
void merge_lanes(const std::vector<PairWorker>& workers, const PairShape& shape, int64_t query, int64_t group,
                 float* output, float* log_sum_exp) {
  const int64_t block = shape.block_of(query, group), lane = shape.lane_of(query), at = block * shape.lanes + lane;
  const auto maximum_of = [&](const PairWorker& worker) { return double{words_of<float>(worker.maximum)[at]}; };
  constexpr double none = -std::numeric_limits<double>::infinity();
  double maximum = none;
  for (const PairWorker& worker : workers) maximum = std::max(maximum, maximum_of(worker));
  const auto kept = [&](const PairWorker& worker) {
    return std::exp2((maximum_of(worker) - maximum) / cpu::power_steps);
  };
  double denominator = 0;
  for (const PairWorker& worker : workers) {
    const float sum = words_of<float>(worker.denominator)[at];
    // Scores of -infinity alone count for nothing, though their weights are above zero; NaN stays NaN.
    if (maximum_of(worker) != none || std::isnan(sum)) denominator += sum * kept(worker);
  }
  if (denominator == 0) return;
  for (const PairWorker& worker : workers) {
    const auto share = static_cast<float>(kept(worker) / denominator);
    const float* from = words_of<float>(worker.output) + block * shape.value_width * shape.lanes + lane;
    for (int64_t i = 0; i < shape.value_width; ++i) output[i] += share * from[i * shape.lanes];
  }
  *log_sum_exp = static_cast<float>(maximum / cpu::power_steps * std::numbers::ln2 + std::log(denominator));
}

}  // namespace

bool prefers_pair_attention(const at::Tensor& queries, std::span<const RowPage> pages) {
  if (queries.size(0) < least_query_rows || !cpu::pair_kernel().fast) return false;
  return std::all_of(pages.begin(), pages.end(), [](const RowPage& page) {
    return page.keys.scalar_type() == at::kBFloat16 && page.values.scalar_type() == at::kBFloat16 &&
           page.keys.size(2) % 32 == 0 && page.values.size(2) % 32 == 0;
  });
}

RowAttention pair_attention(const at::Tensor& queries, std::span<const RowPage> pages, double scale,
                            const cpu::PairKernel& kernel) {
  const int64_t lanes = kernel.lanes;
  const PairShape shape = {queries.size(0), queries.size(1),
                           queries.size(2), pages.front().values.size(2),
                           lanes,           (queries.size(0) + lanes - 1) / lanes};
  int64_t rows = 0;
  for (const RowPage& page : pages) rows += page.keys.size(0);
  RowAttention result{at::zeros({shape.queries, shape.groups, shape.value_width}, at::kFloat),
                      at::full({shape.queries, shape.groups}, no_score, at::kFloat)};
  if (rows == 0) return result;
  const at::Tensor packed = packed_queries(queries, shape);
  const int64_t row_bytes = shape.groups * (shape.key_width + shape.value_width) * 2;
  const int64_t enough = std::max<int64_t>(1, rows * row_bytes / bytes_a_worker);
  const int64_t count = at::in_parallel_region() ? 1 : std::min<int64_t>(at::get_num_threads(), enough);
  std::vector<PairWorker> workers;
  for (int64_t i = 0; i < count; ++i) workers.emplace_back(shape);
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      attend_pairs_in(kernel, shape, pages, packed, scale, rows * i / count, rows * (i + 1) / count, workers[i]);
    }
  });
  auto* output = result.output.mutable_data_ptr<float>();
  auto* log_sum_exp = result.log_sum_exp.mutable_data_ptr<float>();
  for (int64_t row = 0; row < shape.queries * shape.groups; ++row) {
    merge_lanes(workers, shape, row / shape.groups, row % shape.groups, output + row * shape.value_width,
                log_sum_exp + row);
  }
  return result;
}

}  // namespace cepe::ops
