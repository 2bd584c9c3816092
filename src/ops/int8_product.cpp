#include "ops/int8_product.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "ops/flat_weight.h"
#include "ops/int8_rows.h"
#include "ops/large_pages.h"

namespace cepe::ops {
namespace {

constexpr int64_t width_multiple = 64;   // of the matrix unit's rows
constexpr int64_t rows_together = 1024;  // what a thread takes at a time

[[noreturn]] void refuse_product(const std::string& message) {
  throw base::Error(base::ErrorCode::invalid_argument, "product of rows in 8 bits: " + message);
}

struct Int8Columns {
  at::Tensor values;  // [N / W, E / 4, W, 4], N padded to a multiple of 2 W
  at::Tensor scales;  // [N]
  int64_t outputs = 0;
};

Int8Columns columns_of(std::span<const WeightReference> weights, int64_t width, int64_t lanes) {
  Int8Columns columns;
  for (const PackedWeight& weight : weights) columns.outputs += weight.out_features;
  const int64_t padded = (columns.outputs + 2 * lanes - 1) / (2 * lanes) * (2 * lanes);
  columns.values = at::zeros({padded, width}, at::kChar);
  columns.scales = at::zeros({padded}, at::kFloat);
  int64_t column = 0;
  for (const PackedWeight& weight : weights) {
    const auto* tiles = reinterpret_cast<const int8_t*>(weight.data.const_data_ptr<uint8_t>());
    for (int64_t row = 0; row < weight.out_features; ++row, ++column) {
      const int64_t in_tile = row % cpu::tile_rows;
      const int8_t* from = tiles + (row - in_tile) * width + in_tile;
      const int64_t lane = column % lanes;
      int8_t* to = columns.values.mutable_data_ptr<int8_t>() + (column - lane) * width + lane * 4;
      for (int64_t i = 0; i < width; ++i) to[i / 4 * lanes * 4 + i % 4] = from[i * cpu::tile_rows];
      columns.scales.mutable_data_ptr<float>()[column] = weight.scales.const_data_ptr<float>()[row];
    }
  }
  return columns;
}

void check_product(std::span<const at::Tensor> pages, std::span<const WeightReference> weights, int64_t lanes) {
  if (weights.empty()) refuse_product("no weight given");
  const int64_t width = weights.front().get().in_features;
  for (const PackedWeight& weight : weights) {
    if (takes_int8_product(weight) && weight.in_features == width && width % (4 * lanes) == 0) continue;
    refuse_product("weights must be int8 by rows, on the CPU, of one width that is a multiple of 64; one has width " +
                   std::to_string(weight.in_features));
  }
  for (const at::Tensor& page : pages) {
    if (page.dim() == 2 && is_int8_rows(page) && page.is_cpu() && row_width(page) == width && page.is_contiguous())
      continue;
    refuse_product("pages must be packed rows of width " + std::to_string(width) + " on the CPU, without holes");
  }
}

// Pages cut into what a thread takes at a time.
std::vector<cpu::Int8ProductRows> pieces_of(std::span<const at::Tensor> pages, int64_t width,
                                            const at::Tensor& output) {
  std::vector<cpu::Int8ProductRows> pieces;
  auto* to = static_cast<uint16_t*>(output.mutable_data_ptr());
  for (const at::Tensor& page : pages) {
    const int64_t rows = page.size(0);
    const auto* values = static_cast<const int8_t*>(page.const_data_ptr());
    const auto* scales = static_cast<const float*>(static_cast<const void*>(values + rows * width));
    for (int64_t first = 0; first < rows; first += rows_together) {
      const int64_t count = std::min(rows_together, rows - first);
      pieces.push_back({values + first * width, scales + first, count, to});
      to += count * output.size(1);
    }
  }
  return pieces;
}

}  // namespace

bool takes_int8_product(const PackedWeight& weight) {
  return weight.format == PackedFormat::int8_row && !is_flat(weight) && weight.in_features > 0 &&
         weight.in_features % width_multiple == 0;
}

bool prefers_int8_product() { return cpu::int8_kernel().fast; }

at::Tensor int8_product(std::span<const at::Tensor> pages, std::span<const WeightReference> weights,
                        const cpu::Int8Kernel& kernel) {
  const int64_t lanes = kernel.lanes;
  check_product(pages, weights, lanes);
  const int64_t width = weights.front().get().in_features;
  const Int8Columns columns = columns_of(weights, width, lanes);
  int64_t rows = 0;
  for (const at::Tensor& page : pages) rows += page.size(0);
  at::Tensor output = at::empty({rows, columns.outputs}, at::kBFloat16);
  prefer_large_pages(output);
  const std::vector<cpu::Int8ProductRows> pieces = pieces_of(pages, width, output);
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    const at::Tensor block = at::empty({2 * lanes, width}, at::kChar);
    const at::Tensor sums = at::empty({2, 2 * lanes, 2 * lanes}, at::kInt);
    const cpu::Int8ProductJob job = {.width = width,
                                     .outputs = columns.outputs,
                                     .columns = columns.values.const_data_ptr<int8_t>(),
                                     .column_scales = columns.scales.const_data_ptr<float>(),
                                     .rows = block.mutable_data_ptr<int8_t>(),
                                     .sums = sums.mutable_data_ptr<int32_t>()};
    for (int64_t i = begin; i < end; ++i) kernel.multiply(job, pieces[static_cast<size_t>(i)]);
  });
  return output;
}

}  // namespace cepe::ops
