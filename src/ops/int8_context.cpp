#include "ops/int8_context.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "base/error.h"
#include "ops/int8_rows.h"
#include "ops/large_pages.h"

namespace cepe::ops {
namespace {

constexpr int64_t blocks_a_worker = 16;
constexpr float none = -std::numeric_limits<float>::infinity();

[[noreturn]] void refuse_context(const std::string& message) {
  throw base::Error(base::ErrorCode::invalid_argument, "context in 8 bits: " + message);
}

int64_t up_to(int64_t width, int64_t multiple) { return (width + multiple - 1) / multiple * multiple; }
int64_t padded_key(int64_t width) { return up_to(width, 4); }
int64_t padded_value(int64_t width) { return up_to(width, cpu::int8_block); }
cpu::Int8BlockShape block_shape(int64_t groups, int64_t key_width, int64_t value_width) {
  return {groups, padded_key(key_width), padded_value(value_width)};
}
cpu::Int8BlockShape block_shape(const Int8Context& context) {
  return block_shape(context.groups, context.key_width, context.value_width);
}

template <class T>
T* data_of(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

// What stands in the columns of the products: for each group its keys' weights, then its values', each padded to 64.
struct Int8Weights {
  at::Tensor columns;  // uint8
  at::Tensor scales;   // float32

  Int8Weights(const at::Tensor& keys, const at::Tensor& values, int64_t groups) {
    const int64_t width = keys.size(1);
    const int64_t each = padded_value(keys.size(0) / groups) + padded_value(values.size(0) / groups);
    columns = at::full({groups * each * width}, 128, at::kByte);
    scales = at::zeros({groups * each}, at::kFloat);
    int64_t column = 0;
    for (int64_t group = 0; group < groups; ++group) {
      for (const at::Tensor& weight : {keys, values}) {
        const int64_t rows = weight.size(0) / groups;
        put(int8_rows(weight.narrow(0, group * rows, rows)), column);
        column += padded_value(rows);
      }
    }
  }

 private:
  // Packed rows to columns from `column` on.
  void put(const at::Tensor& packed, int64_t column) {
    const int64_t rows = packed.size(0), width = row_width(packed);
    const auto* values = static_cast<const int8_t*>(packed.const_data_ptr());
    const auto* row_scales = static_cast<const float*>(static_cast<const void*>(values + rows * width));
    for (int64_t row = 0; row < rows; ++row, ++column) {
      const int64_t lane = column % cpu::int8_block;
      uint8_t* to = data_of<uint8_t>(columns) + (column - lane) * width + 4 * lane;
      for (int64_t i = 0; i < width; ++i)
        to[i / 4 * 4 * cpu::int8_block + i % 4] = static_cast<uint8_t>(values[row * width + i] + 128);
      data_of<float>(scales)[column] = row_scales[row];
    }
  }
};

// Queries in 8 bits, [G * R, D] and zeros behind, with what the kernel is told of each.
struct Int8Queries {
  at::Tensor values, scales, starts;

  Int8Queries(const at::Tensor& queries, int64_t width, double scale) {
    const int64_t rows = queries.size(0), groups = queries.size(1), given = queries.size(2);
    values = at::zeros({groups * rows + cpu::int8_rows_read_on, width}, at::kChar);
    scales = at::empty({groups, rows}, at::kFloat);
    starts = at::empty({groups, rows}, at::kInt);
    const at::Tensor dense = queries.contiguous();
    const float* from = dense.const_data_ptr<float>();
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t group = 0; group < groups; ++group, from += given) {
        const int64_t at = group * rows + row;
        float largest = 0;
        for (int64_t i = 0; i < given; ++i) largest = std::max(largest, std::abs(from[i]));
        const float step = std::max(largest / 127, 1e-30f);
        int8_t* to = data_of<int8_t>(values) + at * width;
        int32_t sum = 0;
        for (int64_t i = 0; i < given; ++i) {
          to[i] = static_cast<int8_t>(std::lrint(from[i] / step));
          sum += to[i];
        }
        data_of<float>(scales)[at] = static_cast<float>(step * scale * std::numbers::log2e);
        data_of<int32_t>(starts)[at] = -128 * sum;
      }
    }
  }
};

// State of one worker.
struct Int8Worker {
  at::Tensor output, maximum, denominator;

  Int8Worker(int64_t rows, int64_t value_width)
      : output(at::empty({rows, value_width}, at::kFloat)),
        maximum(at::empty({rows}, at::kFloat)),
        denominator(at::empty({rows, 16}, at::kFloat)) {
    reset();
  }
  void reset() const {
    output.zero_();
    maximum.fill_(none);
    denominator.zero_();
  }
  double sum_of(int64_t row) const {
    const float* lanes = data_of<float>(denominator) + row * 16;
    double sum = 0;
    for (int i = 0; i < 16; ++i) sum += lanes[i];
    return sum;
  }
};

class Int8Reader {
 public:
  Int8Reader(const at::Tensor& queries, const Int8Context& context, double scale, const cpu::Int8ContextKernel& kernel)
      : context_(context),
        kernel_(kernel),
        queries_(checked(queries, context, scale), padded_key(context.key_width), scale),
        rows_(queries.size(0)) {}

  int64_t blocks() const { return static_cast<int64_t>(context_.blocks.size()); }
  Int8Worker worker() const { return {rows_ * context_.groups, padded_value(context_.value_width)}; }

  // Blocks [begin, end).
  void attend(const Int8Worker& worker, int64_t begin, int64_t end) const {
    const cpu::Int8AttentionJob job = {.shape = block_shape(context_),
                                       .queries = rows_,
                                       .query = data_of<int8_t>(queries_.values),
                                       .query_scales = data_of<float>(queries_.scales),
                                       .query_starts = data_of<int32_t>(queries_.starts),
                                       .output = data_of<float>(worker.output),
                                       .maximum = data_of<float>(worker.maximum),
                                       .denominator = data_of<float>(worker.denominator)};
    kernel_.attend(job, {context_.blocks.data() + begin, context_.block_rows.data() + begin, end - begin});
  }

 private:
  const Int8Context& context_;
  const cpu::Int8ContextKernel& kernel_;
  Int8Queries queries_;
  int64_t rows_;

  static const at::Tensor& checked(const at::Tensor& queries, const Int8Context& context, double scale) {
    if (queries.dim() != 3 || queries.scalar_type() != at::kFloat || !queries.is_cpu() || !(scale > 0) ||
        queries.size(1) != context.groups || queries.size(2) != context.key_width)
      refuse_context("queries must be float32 [R, " + std::to_string(context.groups) + ", " +
                     std::to_string(context.key_width) + "] on the CPU, with a scale above zero");
    return queries;
  }
};

// The workers' sums brought to one maximum, divided by the sum of their denominators. `row` counts [G, R].
void merge_workers(const std::vector<Int8Worker>& workers, int64_t row, int64_t width, float* output,
                   float* log_sum_exp) {
  const auto maximum_of = [&](const Int8Worker& worker) { return data_of<float>(worker.maximum)[row]; };
  float maximum = none;
  for (const Int8Worker& worker : workers) maximum = std::max(maximum, maximum_of(worker));
  if (!(maximum > none)) return;
  const auto kept = [&](const Int8Worker& worker) { return std::exp2(maximum_of(worker) - maximum); };
  double denominator = 0;
  for (const Int8Worker& worker : workers) denominator += worker.sum_of(row) * kept(worker);
  for (const Int8Worker& worker : workers) {
    const auto share = static_cast<float>(kept(worker) / denominator);
    const float* from = data_of<float>(worker.output) + row * worker.output.size(1);
    for (int64_t i = 0; i < width; ++i) output[i] += share * from[i];
  }
  *log_sum_exp = static_cast<float>(maximum * std::numbers::ln2 + std::log(denominator));
}

}  // namespace

int64_t Int8Context::bytes() const { return static_cast<int64_t>(blocks.size()) * block_shape(*this).bytes(); }

void Int8Context::append(const Int8Context& other) {
  blocks.insert(blocks.end(), other.blocks.begin(), other.blocks.end());
  memory.insert(memory.end(), other.memory.begin(), other.memory.end());
  block_rows.insert(block_rows.end(), other.block_rows.begin(), other.block_rows.end());
  page_blocks.insert(page_blocks.end(), other.page_blocks.begin(), other.page_blocks.end());
}

int64_t int8_context_bytes(std::span<const int64_t> page_rows, int64_t groups, int64_t key_width, int64_t value_width) {
  int64_t blocks = 0;
  for (const int64_t rows : page_rows) blocks += up_to(rows, cpu::int8_block) / cpu::int8_block;
  return blocks * block_shape(groups, key_width, value_width).bytes();
}

Int8PageForm int8_page_form(int64_t rows, int64_t groups, int64_t key_width, int64_t value_width) {
  return {up_to(rows, cpu::int8_block) / cpu::int8_block, block_shape(groups, key_width, value_width).bytes()};
}

namespace {

// The shape of a context of pages with these rows, whose blocks are yet to come.
Int8Context empty_context(std::span<const int64_t> page_rows, int64_t groups, int64_t key_width, int64_t value_width) {
  Int8Context context;
  context.groups = groups;
  context.key_width = key_width;
  context.value_width = value_width;
  for (const int64_t rows : page_rows) {
    for (int64_t first = 0; first < rows; first += cpu::int8_block)
      context.block_rows.push_back(static_cast<int32_t>(std::min<int64_t>(cpu::int8_block, rows - first)));
    context.page_blocks.push_back((rows + cpu::int8_block - 1) / cpu::int8_block);
  }
  return context;
}

// Checked keys and values weights, and the context that they make of `pages`, without its blocks.
Int8Context checked_projection(std::span<const at::Tensor> pages, const at::Tensor& keys, const at::Tensor& values,
                               int64_t groups) {
  const auto is_weight = [&](const at::Tensor& weight) {
    return weight.dim() == 2 && weight.scalar_type() == at::kFloat && weight.is_cpu() &&
           weight.size(1) == keys.size(1) && takes_int8_context(weight.size(1)) && weight.size(0) > 0 &&
           weight.size(0) % groups == 0;
  };
  if (groups < 1 || !is_weight(keys) || !is_weight(values))
    refuse_context("weights must be float32 [G * D, E] on the CPU, of one E, a multiple of 4");
  const int64_t width = keys.size(1);
  std::vector<int64_t> rows;
  for (const at::Tensor& page : pages) {
    if (page.dim() != 2 || !is_int8_rows(page) || !page.is_cpu() || row_width(page) != width || !page.is_contiguous())
      refuse_context("pages must be packed rows of width " + std::to_string(width) + " on the CPU, without holes");
    rows.push_back(page.size(0));
  }
  return empty_context(rows, groups, keys.size(0) / groups, values.size(0) / groups);
}

// Blocks of 64 rows of the pages, in order.
void project_into_blocks(const Int8Context& context, std::span<const at::Tensor> pages, const at::Tensor& keys,
                         const at::Tensor& values, const cpu::Int8ContextKernel& kernel) {
  const int64_t width = keys.size(1);
  std::vector<cpu::Int8ContextRows> pieces;
  for (const at::Tensor& page : pages) {
    const int64_t rows = page.size(0);
    const auto* states = static_cast<const int8_t*>(page.const_data_ptr());
    const auto* scales = static_cast<const float*>(static_cast<const void*>(states + rows * width));
    for (int64_t first = 0; first < rows; first += cpu::int8_block) {
      const int64_t count = std::min<int64_t>(cpu::int8_block, rows - first);
      pieces.push_back({states + first * width, scales + first, count, context.blocks[pieces.size()]});
    }
  }
  const Int8Weights weights(keys, values, context.groups);
  const cpu::Int8BlockShape shape = block_shape(context);
  const int64_t key_columns = padded_value(context.key_width);
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), blocks_a_worker, [&](int64_t begin, int64_t end) {
    const at::Tensor products = at::empty({cpu::int8_block, std::max(key_columns, shape.value_width)}, at::kFloat);
    const at::Tensor key = at::empty({key_columns}, at::kByte);
    const cpu::Int8ContextJob job = {.shape = shape,
                                     .width = width,
                                     .columns = data_of<uint8_t>(weights.columns),
                                     .column_scales = data_of<float>(weights.scales),
                                     .products = data_of<float>(products),
                                     .bytes = data_of<uint8_t>(key)};
    for (int64_t i = begin; i < end; ++i) kernel.project(job, pieces[static_cast<size_t>(i)]);
  });
}

}  // namespace

Int8Context project_int8(std::span<const at::Tensor> pages, const at::Tensor& keys, const at::Tensor& values,
                         int64_t groups, const cpu::Int8ContextKernel& kernel) {
  Int8Context context = checked_projection(pages, keys, values, groups);
  const auto blocks = static_cast<int64_t>(context.block_rows.size());
  const int64_t bytes = block_shape(context).bytes();
  context.memory = {at::empty({blocks, bytes}, at::kByte)};
  prefer_large_pages(context.memory.front());
  auto* data = data_of<uint8_t>(context.memory.front());
  for (int64_t i = 0; i < blocks; ++i) context.blocks.push_back(data + i * bytes);
  project_into_blocks(context, pages, keys, values, kernel);
  return context;
}

void project_int8_into(const Int8Context& context, std::span<const at::Tensor> pages, const at::Tensor& keys,
                       const at::Tensor& values, const cpu::Int8ContextKernel& kernel) {
  const Int8Context made = checked_projection(pages, keys, values, context.groups);
  if (made.block_rows != context.block_rows || made.key_width != context.key_width ||
      made.value_width != context.value_width || context.blocks.size() != context.block_rows.size())
    refuse_context("the blocks are of other pages or weights");
  project_into_blocks(context, pages, keys, values, kernel);
}

Int8Context int8_context_of(std::span<const at::Tensor> memory, int64_t layer, std::span<const int64_t> page_rows,
                            int64_t groups, int64_t key_width, int64_t value_width) {
  Int8Context context = empty_context(page_rows, groups, key_width, value_width);
  const int64_t bytes = block_shape(context).bytes();
  if (memory.size() != page_rows.size()) refuse_context("there must be as much memory as pages");
  for (size_t page = 0; page < memory.size(); ++page) {
    const at::Tensor& rows = memory[page];
    const int64_t blocks = context.page_blocks[page];
    if (rows.dim() != 2 || !rows.is_cpu() || rows.scalar_type() != at::kByte || !rows.is_contiguous() || layer < 0 ||
        rows.size(1) != bytes || rows.size(0) < (layer + 1) * blocks)
      refuse_context("a page of " + std::to_string(page_rows[page]) + " rows must be uint8 [layers * " +
                     std::to_string(blocks) + ", " + std::to_string(bytes) + "] on the CPU, without holes");
    for (int64_t i = 0; i < blocks; ++i)
      context.blocks.push_back(data_of<uint8_t>(rows) + (layer * blocks + i) * bytes);
  }
  context.memory.assign(memory.begin(), memory.end());
  return context;
}

RowAttention int8_attention(const at::Tensor& queries, const Int8Context& context, double scale,
                            const cpu::Int8ContextKernel& kernel) {
  const Int8Reader reader(queries, context, scale, kernel);
  const int64_t rows = queries.size(0), groups = queries.size(1), width = context.value_width;
  RowAttention result{at::zeros({rows, groups, width}, at::kFloat), at::full({rows, groups}, none, at::kFloat)};
  const int64_t blocks = reader.blocks(), enough = std::max<int64_t>(1, blocks / blocks_a_worker);
  if (blocks == 0 || rows == 0) return result;
  const int64_t count = at::in_parallel_region() ? 1 : std::min<int64_t>(at::get_num_threads(), enough);
  std::vector<Int8Worker> workers;
  for (int64_t i = 0; i < count; ++i) workers.push_back(reader.worker());
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      reader.attend(workers[static_cast<size_t>(i)], blocks * i / count, blocks * (i + 1) / count);
  });
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t group = 0; group < groups; ++group)
      merge_workers(workers, group * rows + row, width, data_of<float>(result.output) + (row * groups + group) * width,
                    data_of<float>(result.log_sum_exp) + row * groups + group);
  }
  return result;
}

at::Tensor int8_page_log_sum_exps(const at::Tensor& queries, const Int8Context& context, double scale,
                                  const cpu::Int8ContextKernel& kernel) {
  const Int8Reader reader(queries, context, scale, kernel);
  const int64_t rows = queries.size(0), groups = queries.size(1);
  const auto pages = static_cast<int64_t>(context.page_blocks.size());
  at::Tensor result = at::full({pages, rows, groups}, none, at::kFloat);
  std::vector<int64_t> first = {0};
  for (const int64_t blocks : context.page_blocks) first.push_back(first.back() + blocks);
  at::parallel_for(0, pages, 4, [&](int64_t begin, int64_t end) {
    std::vector<Int8Worker> worker = {reader.worker()};
    std::vector<float> output(static_cast<size_t>(context.value_width));
    for (int64_t page = begin; page < end; ++page) {
      worker.front().reset();
      reader.attend(worker.front(), first[static_cast<size_t>(page)], first[static_cast<size_t>(page) + 1]);
      for (int64_t row = 0; row < rows * groups; ++row)
        merge_workers(worker, row % groups * rows + row / groups, context.value_width, output.data(),
                      data_of<float>(result) + page * rows * groups + row);
    }
  });
  return result;
}

}  // namespace cepe::ops
