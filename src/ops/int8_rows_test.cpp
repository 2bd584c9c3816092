#include "ops/int8_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

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

TEST(Int8Rows, DenseRowsAreGivenBack) {
  const at::Tensor dense = at::randn({2, 64});
  EXPECT_TRUE(unpacked_rows(dense).is_same(dense));
}

}  // namespace
}  // namespace cepe::ops
