// The bodies of quantise_test.cpp on a GPU.
#include "gpu.h"
#include "ops/device_graph.h"
#include "packed_cases.h"

namespace cepe::ops {
namespace {

class QuantiseOnGpu : public test::OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (test::gpu().device) at::manual_seed(41);
  }
};

TEST_F(QuantiseOnGpu, ProductsAreThoseOfTheUnpackedWeight) { test::expect_products_of_the_unpacked_weight(device()); }
TEST_F(QuantiseOnGpu, FloatProductsAreThoseOfTheUnpackedWeight) {
  test::expect_float_products_of_the_unpacked_weight(device());
}
TEST_F(QuantiseOnGpu, EachWeightIsInItsPlace) { test::expect_each_weight_in_its_place(device()); }
TEST_F(QuantiseOnGpu, ValuesAreRoundedToTheNearest) { test::expect_values_rounded_to_the_nearest(device()); }
TEST_F(QuantiseOnGpu, TheSameIsQuantisedAsOnTheCpu) { test::expect_the_same_quantised_anywhere(device()); }
TEST_F(QuantiseOnGpu, WidthsMayBeOfAnySize) { test::expect_widths_of_any_size(device()); }
TEST_F(QuantiseOnGpu, RowsMayStandAnywhereInMemory) { test::expect_rows_of_x_anywhere_in_memory(device()); }
TEST_F(QuantiseOnGpu, RowsAndPartsAreThoseOfTheWhole) { test::expect_rows_and_parts_of_the_whole(device()); }
TEST_F(QuantiseOnGpu, BytesAreAsForetold) { test::expect_bytes_as_foretold(device()); }
TEST_F(QuantiseOnGpu, WhatDoesNotFitIsRefused) { test::expect_what_does_not_fit_to_be_refused(device()); }

// Few and many thread blocks, fewer chunks than warps, more than are on their way at once, a last one that is partly
// there, and an x too wide for shared memory.
TEST_F(QuantiseOnGpu, OneRowIsMultipliedInAnyShape) {
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{20, 80},    {4300, 80},    {40, 4112}, {4300, 4112},
                                                           {33, 16400}, {4300, 12304}, {20, 40960}};
  for (const auto& [out, in] : shapes) {
    for (const PackedFormat format : {PackedFormat::fp8_row, PackedFormat::int8_row}) {
      const PackedWeight weight = quantise(at::randn({out, in}, device()), format);
      const at::Tensor x = at::randn({1, in}, device()).to(at::kBFloat16);
      const at::Tensor expected = at::linear(x.to(at::kDouble), unpack(weight, at::kFloat).to(at::kDouble));
      const at::Tensor y = packed_linear(x, weight);
      EXPECT_LT(test::packed_distance(y, expected), 1e-2) << test::packed_name(format, out, in, 1);
      EXPECT_TRUE(at::equal(y, packed_linear(x, weight))) << test::packed_name(format, out, in, 1);
    }
  }
}

TEST_F(QuantiseOnGpu, ARecordedProductReadsNewInputs) {
  for (const PackedFormat format : test::quantised_formats) {
    const PackedWeight weight = quantise(at::randn({96, 256}).to(device()), format);
    for (const int64_t rows : {1, 16, 40}) {
      at::Tensor x = at::randn({rows, 256}).to(device(), at::kBFloat16);
      at::Tensor y = packed_linear(x, weight);
      const auto graph = DeviceGraph::record(device(), [&] { y.copy_(packed_linear(x, weight)); });
      if (!graph) GTEST_SKIP() << "no graphs here";
      x.copy_(at::randn({rows, 256}));
      graph->replay();
      EXPECT_TRUE(at::equal(y, packed_linear(x, weight))) << test::packed_name(format, 96, 256, rows);
    }
  }
}

}  // namespace
}  // namespace cepe::ops
