#include "ops/int8_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "ops/int8_rows.h"

namespace cepe::ops {
namespace {

std::vector<std::pair<std::string, cpu::Int8Kernel>> int8_kernels() {
  std::vector<std::pair<std::string, cpu::Int8Kernel>> found = {{"portable", cpu::portable_int8_kernel()}};
  if (cpu::int8_kernel().fast) found.emplace_back("chosen", cpu::int8_kernel());
  return found;
}

PackedWeight random_rows(int64_t out, int64_t in) {
  return pack_int8_rows(at::randint(-127, 128, {out, in}, at::kChar), at::randn({out}).abs());
}

// Every value is within its rounding to bfloat16 of the product of the unpacked numbers in float64, which are off by
// that of float32 themselves.
void expect_exact_product(const std::vector<at::Tensor>& pages, const std::vector<PackedWeight>& weights) {
  std::vector<at::Tensor> rows, columns;
  for (const at::Tensor& page : pages) rows.push_back(unpacked_rows(page, at::kDouble));
  for (const PackedWeight& weight : weights) columns.push_back(unpack(weight, at::kFloat).to(at::kDouble));
  const at::Tensor left = at::cat(rows), right = at::cat(columns).t(), expected = at::mm(left, right);
  const at::Tensor tolerance = expected.abs() / 256 + at::mm(left.abs(), right.abs()) * 1e-6;
  const std::vector<WeightReference> given(weights.begin(), weights.end());
  for (const auto& [name, kernel] : int8_kernels()) {
    SCOPED_TRACE(name);
    const at::Tensor product = int8_product(pages, given, kernel);
    ASSERT_EQ(product.sizes(), expected.sizes());
    const at::Tensor off = (product.to(at::kDouble) - expected).abs();
    EXPECT_TRUE((off <= tolerance).all().item<bool>()) << (off - tolerance).max();
  }
}

TEST(Int8Product, IsExactBeforeItsOnlyRounding) {
  at::manual_seed(1);
  for (const int64_t width : {64, 576, 1024}) {
    for (const auto& [keys, values] : std::vector<std::pair<int64_t, int64_t>>{{32, 32}, {192, 192}, {7, 50}, {1, 0}}) {
      SCOPED_TRACE("width " + std::to_string(width) + " outputs " + std::to_string(keys));
      std::vector<at::Tensor> pages;
      for (const int64_t rows : {16, 0, 1, 70}) pages.push_back(int8_rows(at::randn({rows, width})));
      expect_exact_product(pages, {random_rows(keys, width), random_rows(values, width)});
    }
  }
}

TEST(Int8Product, TakesTheGreatestValuesAndScalesOfZero) {
  const int64_t width = 1024;
  at::Tensor states = at::zeros({40, width});
  states.narrow(0, 0, 10).fill_(2.5);
  states.narrow(0, 10, 10).fill_(-1e6);
  states[20][3] = 1e-30;
  at::Tensor values = at::zeros({40, width}, at::kChar), scales = at::zeros({40});
  values.narrow(0, 0, 20).fill_(127);
  values.narrow(0, 20, 10).fill_(-127);
  scales.narrow(0, 10, 20).fill_(3);
  expect_exact_product({int8_rows(states)}, {pack_int8_rows(values, scales)});
}

TEST(Int8Product, AContextOfOnePageAndOfManyIsTheSame) {
  at::manual_seed(2);
  const at::Tensor states = at::randn({2100, 64});
  const std::vector<PackedWeight> weights = {random_rows(40, 64)};
  const std::vector<WeightReference> given(weights.begin(), weights.end());
  const std::vector<at::Tensor> one = {int8_rows(states)};
  std::vector<at::Tensor> many;
  for (int64_t row = 0; row < 2100; row += 300) many.push_back(int8_rows(states.narrow(0, row, 300)));
  EXPECT_TRUE(int8_product(one, given).equal(int8_product(many, given)));
}

TEST(Int8Product, RefusesWhatItDoesNotTake) {
  const std::vector<at::Tensor> pages = {int8_rows(at::randn({4, 64}))}, dense = {at::randn({4, 64})};
  const PackedWeight fits = random_rows(8, 64), narrow = random_rows(8, 32), wide = random_rows(8, 128);
  EXPECT_TRUE(takes_int8_product(fits));
  EXPECT_FALSE(takes_int8_product(narrow));
  const auto product = [&](const std::vector<at::Tensor>& rows, const std::vector<WeightReference>& weights) {
    return int8_product(rows, weights);
  };
  EXPECT_NO_THROW(product(pages, {fits}));
  EXPECT_THROW(product(dense, {fits}), base::Error);
  EXPECT_THROW(product(pages, {wide}), base::Error);
  EXPECT_THROW(product(pages, {narrow}), base::Error);
  EXPECT_THROW(product(pages, {}), base::Error);
}

}  // namespace
}  // namespace cepe::ops
