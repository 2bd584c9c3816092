#include "ops/row_attention.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "ops/cpu/kernels.h"
#include "ops/pair_attention.h"

namespace cepe::ops {
namespace {

constexpr int64_t bytes_a_thread = int64_t{64} << 10;

[[noreturn]] void refuse(const std::string& message) {
  throw base::Error(base::ErrorCode::invalid_argument, "row attention: " + message);
}

struct Shape {
  int64_t queries, groups, key_width, value_width;  // R, G, D, Dv
  int64_t padded_key, padded_value;                 // multiples of the kernel's step
  bool bfloat16;                                    // pages are read as they are: all bfloat16, no padding
};

void check_rows(const at::Tensor& rows, int64_t groups, const char* name) {
  const bool known = rows.scalar_type() == at::kFloat || rows.scalar_type() == at::kBFloat16;
  if (rows.dim() != 3 || rows.size(1) != groups || !known || !rows.device().is_cpu()) {
    refuse(std::string(name) + " of a page must be bfloat16 or float32 [M, " + std::to_string(groups) + ", width]");
  }
  const bool dense = rows.stride(2) == 1 && (groups == 1 || rows.stride(1) == rows.size(2));
  if (rows.numel() != 0 && !dense) refuse(std::string(name) + " of a page must be contiguous within a row");
}

Shape shape_of(const at::Tensor& queries, std::span<const RowPage> pages, int64_t step) {
  if (queries.dim() != 3 || queries.scalar_type() != at::kFloat) refuse("queries must be float32 [R, G, D]");
  Shape shape{queries.size(0), queries.size(1), queries.size(2), queries.size(2), 0, 0, true};
  if (!pages.empty()) shape.value_width = pages[0].values.size(-1);
  for (const RowPage& page : pages) {
    check_rows(page.keys, shape.groups, "keys");
    check_rows(page.values, shape.groups, "values");
    if (page.keys.size(0) != page.values.size(0) || page.keys.size(2) != shape.key_width ||
        page.values.size(2) != shape.value_width) {
      refuse("a page's keys and values differ in rows, or in width from the queries or the other pages");
    }
    shape.bfloat16 &= page.keys.scalar_type() == at::kBFloat16 && page.values.scalar_type() == at::kBFloat16;
  }
  shape.padded_key = (shape.key_width + step - 1) / step * step;
  shape.padded_value = (shape.value_width + step - 1) / step * step;
  shape.bfloat16 &= shape.padded_key == shape.key_width && shape.padded_value == shape.value_width;
  return shape;
}

// Within each step of a bfloat16 row the kernels meet the even elements first, then the odd ones.
int64_t place_of(int64_t element, int64_t step, bool bfloat16) {
  if (!bfloat16) return element;
  const int64_t within = element % step;
  return element - within + within / 2 + within % 2 * (step / 2);
}

std::vector<float> ordered_queries(const at::Tensor& queries, const Shape& shape, int64_t step) {
  const at::Tensor dense = queries.contiguous();
  const float* from = dense.const_data_ptr<float>();
  std::vector<float> ordered(shape.groups * shape.queries * shape.padded_key, 0.0f);
  for (int64_t r = 0; r < shape.queries; ++r) {
    for (int64_t g = 0; g < shape.groups; ++g) {
      for (int64_t i = 0; i < shape.key_width; ++i) {
        ordered[(g * shape.queries + r) * shape.padded_key + place_of(i, step, shape.bfloat16)] = *from++;
      }
    }
  }
  return ordered;
}

struct Worker {
  std::vector<float> output, maximum, denominator, scores, keys, values;  // keys, values: padded float32 copies

  explicit Worker(const Shape& shape)
      : output(shape.groups * shape.queries * shape.padded_value, 0.0f),
        maximum(shape.groups * shape.queries, -std::numeric_limits<float>::infinity()),
        denominator(shape.groups * shape.queries, 0.0f),
        scores(shape.queries * cpu::attention_block) {}
};

// Rows [begin, end) of one page's keys or values as float32 [rows, G, padded].
void widen(const at::Tensor& rows, int64_t begin, int64_t end, int64_t padded, std::vector<float>& to) {
  const int64_t groups = rows.size(1);
  const int64_t width = rows.size(2);
  to.assign((end - begin) * groups * padded, 0.0f);
  const bool wide = rows.scalar_type() == at::kFloat;
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t g = 0; g < groups; ++g) {
      float* target = to.data() + ((row - begin) * groups + g) * padded;
      const int64_t at = row * rows.stride(0) + g * width;
      for (int64_t i = 0; i < width; ++i) {
        target[i] = wide ? static_cast<const float*>(rows.const_data_ptr())[at + i]
                         : base::bfloat16_to_float(static_cast<const uint16_t*>(rows.const_data_ptr())[at + i]);
      }
    }
  }
}

void attend_widened(const cpu::Kernels& kernels, const cpu::AttentionJob& job, const RowPage& page, int64_t begin,
                    int64_t end, Worker& worker) {
  const bool same = page.keys.const_data_ptr() == page.values.const_data_ptr();
  for (int64_t row = begin; row < end; row += cpu::attention_block) {
    const int64_t stop = std::min(end, row + cpu::attention_block);
    widen(page.keys, row, stop, job.key_width, worker.keys);
    if (!same) widen(page.values, row, stop, job.value_width, worker.values);
    const float* values = same ? worker.keys.data() : worker.values.data();
    kernels.attend_float(
        job, {worker.keys.data(), values, job.groups * job.key_width, job.groups * job.value_width, stop - row});
  }
}

void attend_page(const cpu::Kernels& kernels, const cpu::AttentionJob& job, const Shape& shape, const RowPage& page,
                 const RowPage* next, int64_t begin, int64_t end, Worker& worker) {
  const bool wide = page.keys.scalar_type() == at::kFloat && page.values.scalar_type() == at::kFloat &&
                    shape.padded_key == shape.key_width && shape.padded_value == shape.value_width;
  if (!shape.bfloat16 && !wide) return attend_widened(kernels, job, page, begin, end, worker);
  const int64_t bytes = wide ? 4 : 2;
  const auto from = [&](const at::Tensor& rows) {
    return static_cast<const std::byte*>(rows.const_data_ptr()) + begin * rows.stride(0) * bytes;
  };
  const cpu::AttentionRows run{from(page.keys),
                               from(page.values),
                               page.keys.stride(0),
                               page.values.stride(0),
                               end - begin,
                               next ? next->keys.const_data_ptr() : nullptr,
                               next ? next->values.const_data_ptr() : nullptr};
  (wide ? kernels.attend_float : kernels.attend_bfloat16)(job, run);
}

// Rows [begin, end) of all pages taken as one run.
void attend_range(const cpu::Kernels& kernels, const Shape& shape, std::span<const RowPage> pages, const float* queries,
                  double scale, int64_t begin, int64_t end, Worker& worker) {
  const cpu::AttentionJob job{
      shape.queries, shape.groups,         shape.padded_key,      shape.padded_value,        static_cast<float>(scale),
      queries,       worker.output.data(), worker.maximum.data(), worker.denominator.data(), worker.scores.data()};
  int64_t first = 0;
  for (size_t i = 0; i < pages.size() && first < end; ++i) {
    const RowPage& page = pages[i];
    const RowPage* next = i + 1 < pages.size() ? &pages[i + 1] : nullptr;
    const int64_t rows = page.keys.size(0);
    const int64_t low = std::max(begin - first, int64_t{0});
    const int64_t high = std::min(end - first, rows);
    if (low < high) attend_page(kernels, job, shape, page, next, low, high, worker);
    first += rows;
  }
}

// One (query, group): the workers' sums brought to one maximum, divided by the sum of their denominators.
void merge(const std::vector<Worker>& workers, const Shape& shape, int64_t step, int64_t query, int64_t group,
           float* output, float* log_sum_exp) {
  const int64_t at = group * shape.queries + query;
  float maximum = -std::numeric_limits<float>::infinity();
  for (const Worker& worker : workers) maximum = std::max(maximum, worker.maximum[at]);
  double denominator = 0;  // NaN where a worker met NaN, whose maximum then says nothing
  for (const Worker& worker : workers) {
    if (worker.denominator[at] != 0) denominator += worker.denominator[at] * std::exp(worker.maximum[at] - maximum);
  }
  if (denominator == 0) return;
  for (const Worker& worker : workers) {
    if (worker.denominator[at] == 0) continue;
    const auto share = static_cast<float>(std::exp(worker.maximum[at] - maximum) / denominator);
    const float* from = worker.output.data() + at * shape.padded_value;
    for (int64_t i = 0; i < shape.value_width; ++i) output[i] += share * from[place_of(i, step, shape.bfloat16)];
  }
  *log_sum_exp = maximum + static_cast<float>(std::log(denominator));
}

}  // namespace

RowAttention row_attention(const at::Tensor& queries, std::span<const RowPage> pages, double scale) {
  const cpu::Kernels& kernels = cpu::kernels();
  const int64_t step = kernels.attention_step;
  const Shape shape = shape_of(queries, pages, step);
  int64_t rows = 0;
  for (const RowPage& page : pages) rows += page.keys.size(0);
  RowAttention result{at::zeros({shape.queries, shape.groups, shape.value_width}, at::kFloat),
                      at::full({shape.queries, shape.groups}, -std::numeric_limits<float>::infinity(), at::kFloat)};
  if (rows == 0 || shape.queries == 0 || shape.groups == 0) return result;
  if (scale > 0 && prefers_pair_attention(queries, pages))
    return pair_attention(queries, pages, scale, cpu::pair_kernel());

  const std::vector<float> ordered = ordered_queries(queries, shape, step);
  const int64_t row_bytes = shape.groups * (shape.key_width + shape.value_width) * 2;
  const int64_t enough = std::max<int64_t>(1, rows * row_bytes / bytes_a_thread);
  const int64_t count = at::in_parallel_region() ? 1 : std::min<int64_t>(at::get_num_threads(), enough);
  std::vector<Worker> workers(count, Worker(shape));
  const auto attend = [&](int64_t index) {
    attend_range(kernels, shape, pages, ordered.data(), scale, rows * index / count, rows * (index + 1) / count,
                 workers[index]);
  };
  if (count == 1) {
    attend(0);
  } else {
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index) attend(index);
    });
  }
  for (int64_t r = 0; r < shape.queries; ++r) {
    for (int64_t g = 0; g < shape.groups; ++g) {
      merge(workers, shape, step, r, g,
            result.output.mutable_data_ptr<float>() + (r * shape.groups + g) * shape.value_width,
            result.log_sum_exp.mutable_data_ptr<float>() + r * shape.groups + g);
    }
  }
  return result;
}

}  // namespace cepe::ops
