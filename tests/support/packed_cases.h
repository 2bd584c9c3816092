// What quantised weights must give, on the CPU and on a GPU.
#pragma once

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "ops/packed_weight.h"
#include "ops/quantise.h"

namespace cepe::test {

inline const std::vector<ops::PackedFormat> quantised_formats = {ops::PackedFormat::fp8_row,
                                                                 ops::PackedFormat::int8_row, ops::PackedFormat::q4_1};

inline std::string packed_name(ops::PackedFormat format, int64_t out, int64_t in, int64_t rows) {
  const char* name = format == ops::PackedFormat::fp8_row    ? "fp8_row "
                     : format == ops::PackedFormat::int8_row ? "int8_row "
                                                             : "q4_1 ";
  return name + std::to_string(out) + " x " + std::to_string(in) + ", " + std::to_string(rows) + " rows";
}

// max|a - b| / max|b|.
inline double packed_distance(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor wide = b.to(at::kCPU, at::kDouble);
  return ((a.to(at::kCPU, at::kDouble) - wide).abs().max() / wide.abs().max().clamp_min(1e-30)).item<double>();
}

// Every product against the unpacked weight's in float64: one row and more, around each count where the way changes.
inline void expect_products_of_the_unpacked_weight(at::Device device) {
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{1, 32},   {17, 64},   {48, 96},    {100, 576},
                                                           {33, 160}, {64, 1024}, {270, 2752}, {4300, 256}};
  for (const auto& [out, in] : shapes) {
    for (const ops::PackedFormat format : quantised_formats) {
      const ops::PackedWeight weight = ops::quantise(at::randn({out, in}).to(device), format);
      const at::Tensor dense = ops::unpack(weight, at::kFloat).to(at::kCPU, at::kDouble);
      for (const int64_t rows : {1, 2, 7, 8, 9, 15, 16, 17, 70}) {
        const at::Tensor x = at::randn({rows, in}).to(at::kBFloat16);
        const at::Tensor y = ops::packed_linear(x.to(device), weight);
        ASSERT_EQ(y.sizes(), at::IntArrayRef({rows, out}));
        ASSERT_EQ(y.scalar_type(), at::kBFloat16);
        EXPECT_LT(packed_distance(y, at::linear(x.to(at::kDouble), dense)), 1e-2) << packed_name(format, out, in, rows);
      }
    }
  }
}

inline void expect_float_products_of_the_unpacked_weight(at::Device device) {
  for (const ops::PackedFormat format : quantised_formats) {
    const ops::PackedWeight weight = ops::quantise(at::randn({50, 192}).to(device), format);
    const at::Tensor dense = ops::unpack(weight, at::kFloat).to(at::kCPU, at::kDouble);
    for (const int64_t rows : {0, 1, 20}) {
      const at::Tensor x = at::randn({rows, 192});
      const at::Tensor y = ops::packed_linear(x.to(device), weight);
      ASSERT_EQ(y.sizes(), at::IntArrayRef({rows, 50}));
      if (rows > 0) {
        EXPECT_LT(packed_distance(y, at::linear(x.to(at::kDouble), dense)), 1e-5) << packed_name(format, 50, 192, rows);
      }
    }
  }
}

// A matrix that `format` holds exactly, with each value it can hold: a scale of 1 a row, blocks of -8 to 7.
inline at::Tensor exact_matrix(ops::PackedFormat format, int64_t out, int64_t in) {
  if (format == ops::PackedFormat::q4_1) {
    at::Tensor blocks = at::randint(-8, 8, {out, in / 32, 32}).to(at::kFloat);
    blocks.select(2, 3).fill_(-8);
    blocks.select(2, 30).fill_(7);
    return blocks.reshape({out, in});
  }
  const bool int8 = format == ops::PackedFormat::int8_row;
  // Magnitudes 0 to 126 with either sign are all of e4m3 that is finite.
  const at::Tensor magnitudes = at::randint(int8 ? 128 : 127, {out, in}).to(at::kByte);
  const at::Tensor negative = at::randint(2, {out, in}).to(at::kByte);
  at::Tensor matrix;
  if (int8) {
    matrix = magnitudes.to(at::kFloat) * (1 - 2 * negative.to(at::kFloat));
  } else {
    matrix = magnitudes.bitwise_or(negative.bitwise_left_shift(7)).view(at::kFloat8_e4m3fn).to(at::kFloat);
  }
  matrix.select(1, in / 3).fill_(int8 ? 127 : 448);
  return matrix;
}

// Rows of the unit matrix pick each weight out: any that stood in another place, or was converted wrongly, would show.
inline void expect_each_weight_in_its_place(at::Device device) {
  for (const ops::PackedFormat format : quantised_formats) {
    for (const int64_t in : {32, 64, 96, 256, 320}) {
      const int64_t out = 45;
      const at::Tensor matrix = exact_matrix(format, out, in);
      const ops::PackedWeight weight = ops::quantise(matrix.to(device), format);
      EXPECT_TRUE(at::equal(ops::unpack(weight, at::kFloat).to(at::kCPU), matrix)) << packed_name(format, out, in, 0);
      EXPECT_TRUE(at::equal(ops::unpack(weight, at::kBFloat16).to(at::kCPU, at::kFloat), matrix));
      const at::Tensor units = at::eye(in).to(device, at::kBFloat16);
      for (const int64_t rows : {1, 8, 16, 32}) {
        for (int64_t first = 0; first + rows <= in; first += rows) {
          const at::Tensor y = ops::packed_linear(units.narrow(0, first, rows), weight).to(at::kCPU, at::kFloat);
          ASSERT_TRUE(at::equal(y, matrix.narrow(1, first, rows).t())) << packed_name(format, out, in, rows);
        }
      }
    }
  }
}

// Half a step of the format at most, and a little for the scale's own rounding.
inline void expect_values_rounded_to_the_nearest(at::Device device) {
  const at::Tensor dense = at::randn({40, 96});
  const at::Tensor row_largest = dense.abs().amax(1, true);
  for (const ops::PackedFormat format : quantised_formats) {
    const at::Tensor error =
        (ops::unpack(ops::quantise(dense.to(device), format), at::kFloat).to(at::kCPU) - dense).abs();
    at::Tensor allowed = row_largest / 127 / 2;
    if (format == ops::PackedFormat::fp8_row) allowed = (dense.abs() / 16).maximum(row_largest / 448 / 1024);
    if (format == ops::PackedFormat::q4_1) {
      const at::Tensor blocks = dense.reshape({40, 3, 32});
      const at::Tensor range = blocks.amax(2, true) - blocks.amin(2, true);
      allowed = (range / 30 + 0.01).expand({40, 3, 32}).reshape({40, 96});
    }
    EXPECT_TRUE((error <= allowed * 1.001).all().item<bool>()) << packed_name(format, 40, 96, 0);
  }
}

inline void expect_the_same_quantised_anywhere(at::Device device) {
  for (const ops::PackedFormat format : quantised_formats) {
    const at::Tensor dense = at::randn({64, 320}).to(at::kBFloat16);
    const at::Tensor there = ops::unpack(ops::quantise(dense.to(device), format), at::kFloat).to(at::kCPU);
    const at::Tensor here = ops::unpack(ops::quantise(dense, format), at::kFloat);
    // Divisions may round differently, which moves a value that lies between two steps.
    EXPECT_LT((there - here).abs().mean().item<double>(), 1e-4) << packed_name(format, 64, 320, 0);
  }
}

inline void expect_widths_of_any_size(at::Device device) {
  for (const int64_t in : {1, 7, 33, 40, 72}) {
    for (const ops::PackedFormat format : {ops::PackedFormat::fp8_row, ops::PackedFormat::int8_row}) {
      const ops::PackedWeight weight = ops::quantise(at::randn({21, in}).to(device), format);
      const at::Tensor dense = ops::unpack(weight, at::kFloat).to(at::kCPU, at::kDouble);
      const at::Tensor x = at::randn({3, in}).to(at::kBFloat16);
      EXPECT_LT(packed_distance(ops::packed_linear(x.to(device), weight), at::linear(x.to(at::kDouble), dense)), 1e-2)
          << packed_name(format, 21, in, 3);
    }
  }
}

inline void expect_rows_of_x_anywhere_in_memory(at::Device device) {
  const ops::PackedWeight weight = ops::quantise(at::randn({32, 64}).to(device), ops::PackedFormat::fp8_row);
  const at::Tensor x = at::randn({4, 64}).to(device, at::kBFloat16);
  const at::Tensor expected = ops::packed_linear(x, weight);
  at::Tensor wide = at::zeros({4, 70}, x.options());
  wide.narrow(1, 3, 64).copy_(x);
  EXPECT_TRUE(at::equal(ops::packed_linear(wide.narrow(1, 3, 64), weight), expected));
  at::Tensor odd = at::zeros({4 * 64 + 1}, x.options()).narrow(0, 1, 4 * 64).reshape({4, 64});
  odd.copy_(x);
  EXPECT_LT(packed_distance(ops::packed_linear(odd, weight), expected), 1e-2);
}

inline void expect_rows_and_parts_of_the_whole(at::Device device) {
  for (const ops::PackedFormat format : quantised_formats) {
    const std::vector<ops::PackedWeight> parts = {ops::quantise(at::randn({48, 96}).to(device), format),
                                                  ops::quantise(at::randn({5, 96}).to(device), format)};
    const ops::PackedWeight whole = ops::concatenate(parts);
    const at::Tensor dense = ops::unpack(whole, at::kFloat);
    EXPECT_TRUE(at::equal(dense, at::cat({ops::unpack(parts[0], at::kFloat), ops::unpack(parts[1], at::kFloat)})));
    const at::Tensor rows = at::randint(53, {9}, at::kLong).to(device);
    EXPECT_TRUE(at::equal(ops::unpack_rows(whole, rows, at::kFloat), dense.index_select(0, rows)));
  }
}

inline void expect_bytes_as_foretold(at::Device device) {
  for (const ops::PackedFormat format : quantised_formats) {
    for (const auto& [out, in] : std::vector<std::pair<int64_t, int64_t>>{{64, 256}, {50, 96}}) {
      EXPECT_EQ(ops::packed_bytes(ops::quantise(at::randn({out, in}).to(device), format)),
                ops::quantised_bytes(format, out, in, device.is_cpu()))
          << packed_name(format, out, in, 0);
    }
  }
}

inline void expect_what_does_not_fit_to_be_refused(at::Device device) {
  const auto matrix = [&](int64_t out, int64_t in) { return at::randn({out, in}).to(device); };
  EXPECT_THROW(ops::quantise(matrix(4, 33), ops::PackedFormat::q4_1), base::Error);
  EXPECT_THROW(ops::quantise(matrix(4, 32), ops::PackedFormat::q8_0), base::Error);
  EXPECT_THROW(ops::quantise(at::ones({4}).to(device), ops::PackedFormat::fp8_row), base::Error);
  EXPECT_THROW(ops::quantise(at::ones({4, 4}, at::kLong).to(device), ops::PackedFormat::fp8_row), base::Error);
  const ops::PackedWeight weight = ops::quantise(matrix(4, 32), ops::PackedFormat::fp8_row);
  EXPECT_THROW(ops::packed_linear(matrix(2, 64), weight), base::Error);
  const std::vector<ops::PackedWeight> mixed = {weight, ops::quantise(matrix(4, 32), ops::PackedFormat::int8_row)};
  EXPECT_THROW(ops::concatenate(mixed), base::Error);
}

}  // namespace cepe::test
