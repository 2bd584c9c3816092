#include "ops/quantise.h"

#include "ops/flat_weight.h"
#include "packed_cases.h"

namespace cepe::ops {
namespace {

class Quantise : public testing::Test {
 protected:
  void SetUp() override { at::manual_seed(41); }
};

TEST_F(Quantise, ProductsAreThoseOfTheUnpackedWeight) { test::expect_products_of_the_unpacked_weight(at::kCPU); }
TEST_F(Quantise, FloatProductsAreThoseOfTheUnpackedWeight) {
  test::expect_float_products_of_the_unpacked_weight(at::kCPU);
}
TEST_F(Quantise, EachWeightIsInItsPlace) { test::expect_each_weight_in_its_place(at::kCPU); }
TEST_F(Quantise, ValuesAreRoundedToTheNearest) { test::expect_values_rounded_to_the_nearest(at::kCPU); }
TEST_F(Quantise, WidthsMayBeOfAnySize) { test::expect_widths_of_any_size(at::kCPU); }
TEST_F(Quantise, RowsMayStandAnywhereInMemory) { test::expect_rows_of_x_anywhere_in_memory(at::kCPU); }
TEST_F(Quantise, RowsAndPartsAreThoseOfTheWhole) { test::expect_rows_and_parts_of_the_whole(at::kCPU); }
TEST_F(Quantise, BytesAreAsForetold) { test::expect_bytes_as_foretold(at::kCPU); }
TEST_F(Quantise, WhatDoesNotFitIsRefused) { test::expect_what_does_not_fit_to_be_refused(at::kCPU); }

TEST_F(Quantise, RowsThatAreNotThereAreRefused) {
  const PackedWeight weight = quantise(at::randn({4, 32}), PackedFormat::fp8_row);
  EXPECT_THROW(unpack_rows(weight, at::arange(5), at::kFloat), base::Error);
}

TEST_F(Quantise, RowsOfZerosAndConstantBlocksStayWhatTheyAre) {
  for (const PackedFormat format : test::quantised_formats) {
    EXPECT_TRUE(at::equal(unpack(quantise(at::zeros({3, 64}), format), at::kFloat), at::zeros({3, 64})));
    const at::Tensor ones = at::ones({3, 64});
    EXPECT_LT(test::packed_distance(unpack(quantise(ones, format), at::kFloat), ones), 1e-6);
  }
}

// The layout of a GPU, on the CPU: what goes in comes out, the bytes stand where flat_weight.h says.
TEST_F(Quantise, FlatRowsHoldTheirValues) {
  const at::Tensor values = at::randint(-127, 128, {5, 100}, at::kChar);
  const at::Tensor scales = at::arange(1, 6).to(at::kFloat);
  const PackedWeight weight = flat_from_rows(PackedFormat::int8_row, values, scales);
  EXPECT_TRUE(at::equal(unpack_flat(weight, at::kFloat), values.to(at::kFloat) * scales.unsqueeze(1)));
  EXPECT_EQ(packed_bytes(weight), flat_bytes(PackedFormat::int8_row, 5, 100));
  const auto byte = [&](int64_t row, int64_t input) {
    const auto value = values[row][input].item<int8_t>();
    return value < 0 ? 128 - value : value;
  };
  EXPECT_EQ(weight.data[2][4].item<int>(), byte(2, 4));
  EXPECT_EQ(weight.data[2][5].item<int>(), byte(2, 6));
  EXPECT_EQ(weight.data[2][6].item<int>(), byte(2, 5));
  EXPECT_EQ(weight.data[2][7].item<int>(), byte(2, 7));
  EXPECT_EQ(weight.data[2][100].item<int>(), 0);
}

TEST_F(Quantise, FlatBlocksHoldTheirValues) {
  const at::Tensor quants = at::randint(16, {3, 5, 32}, at::kLong).to(at::kByte);
  const at::Tensor scales = at::randn({3, 5, 2}).to(at::kHalf);
  const PackedWeight weight = flat_from_blocks(quants, scales);
  const at::Tensor wide = scales.to(at::kFloat);
  const at::Tensor expected = quants.to(at::kFloat) * wide.narrow(2, 0, 1) + wide.narrow(2, 1, 1);
  EXPECT_TRUE(at::equal(unpack_flat(weight, at::kFloat), expected.reshape({3, 160})));
  EXPECT_EQ(packed_bytes(weight), flat_bytes(PackedFormat::q4_1, 3, 160));
  // Input 77 is 13 of block 2: 5 of piece 1, nibble 6 of word 2; the fourth byte's low half.
  EXPECT_EQ(weight.data[1][16 + 2 * 4 + 3].item<int>() & 15, quants[1][2][13].item<int>());
  EXPECT_EQ(weight.data[1][16 + 2 * 4 + 3].item<int>() >> 4, quants[1][2][15].item<int>());
}

}  // namespace
}  // namespace cepe::ops
