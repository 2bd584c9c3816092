#include "ops/int8_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "ops/cpu/kernels.h"

namespace cepe::ops {
namespace {

TEST(Int8Rows, AreOffByHalfAStepAtMost) {
  at::manual_seed(1);
  const at::Tensor dense = at::randn({3, 7, 64}) * at::randn({3, 7, 1}).exp();
  const at::Tensor packed = int8_rows(dense);
  ASSERT_EQ(packed.sizes(), at::IntArrayRef({3, 7, 68}));
  EXPECT_EQ(row_width(packed), 64);
  EXPECT_EQ(row_width(dense), 64);
  const at::Tensor half_steps = dense.abs().amax(-1, true) / 254;
  EXPECT_TRUE(((unpacked_rows(packed, at::kFloat) - dense).abs() <= half_steps * 1.0001).all().item<bool>());
  EXPECT_TRUE(unpacked_rows(packed).equal(unpacked_rows(packed, at::kFloat).to(at::kBFloat16)));
}

TEST(Int8Rows, RowsOfZerosStayZero) {
  EXPECT_TRUE(unpacked_rows(int8_rows(at::zeros({2, 64}))).equal(at::zeros({2, 64}, at::kBFloat16)));
}

TEST(Int8Rows, APageIsPackedAloneAsAmongOthers) {
  const at::Tensor pages = at::randn({2, 5, 64});
  const at::Tensor together = int8_rows(pages);
  EXPECT_TRUE(together[1].equal(int8_rows(pages[1])));
  EXPECT_TRUE(unpacked_rows(together)[1].equal(unpacked_rows(together[1])));
}

TEST(Int8Rows, AreUnpackedAtAnyWidth) {
  for (const int64_t width : {1, 6, 7}) {
    const at::Tensor page = at::randn({3, width});
    EXPECT_TRUE(unpacked_rows(int8_rows(page), at::kFloat).allclose(page, 0, 0.02)) << width;
  }
}

// As ATen's operations round, at every level of processor.
TEST(Int8Rows, EveryKernelRoundsToTheNearestStep) {
  const cpu::Level before = cpu::level();
  for (const cpu::Level level : {cpu::Level::portable, cpu::Level::avx2, cpu::Level::avx512}) {
    if (!cpu::choose_level(level)) continue;
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      for (const int64_t width : {1, 6, 16, 37, 384, 576}) {
        at::manual_seed(2);
        const at::Tensor dense = (at::randn({2, 5, width}) * at::randn({2, 5, 1}).exp()).to(type);
        dense[1][3].fill_(0);
        const at::Tensor values = dense.to(at::kFloat), scales = values.abs().amax(-1, true).div(127).clamp_min(1e-30),
                         expected = values.div(scales).round() * scales;
        EXPECT_TRUE(unpacked_rows(int8_rows(dense), at::kFloat).equal(expected)) << width << " " << type;
        EXPECT_TRUE(int8_rows(dense.transpose(0, 1)).equal(int8_rows(dense.transpose(0, 1).contiguous()))) << width;
      }
    }
  }
  cpu::choose_level(before);
}

TEST(Int8Rows, WhatIsNotANumberOrNotFiniteMakesItsRowNone) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    const at::Tensor dense = at::randn({3, 40});
    dense[1][33] = bad;
    const at::Tensor found = unpacked_rows(int8_rows(dense), at::kFloat).isnan();
    EXPECT_TRUE(found[1].all().item<bool>());
    EXPECT_FALSE(found[0].any().item<bool>() || found[2].any().item<bool>());
  }
}

TEST(Int8Rows, DenseRowsAreGivenBack) {
  const at::Tensor dense = at::randn({2, 64});
  EXPECT_TRUE(unpacked_rows(dense).is_same(dense));
}

}  // namespace
}  // namespace cepe::ops
