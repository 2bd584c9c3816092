// Which products share a measured choice; what a CPU makes of them.
#include "ops/tuned_product.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace cepe::ops {
namespace {

TEST(TunedProduct, RowsAlike) {
  EXPECT_EQ(rows_alike(1, 11008, 4096), 1);
  EXPECT_EQ(rows_alike(48, 11008, 4096), 3);
  EXPECT_EQ(rows_alike(49, 11008, 4096), 4);
  EXPECT_EQ(rows_alike(64, 4096, 4096), 0);    // a cache keeps that weight
  EXPECT_EQ(rows_alike(65, 11008, 4096), 0);   // between
  EXPECT_EQ(rows_alike(1024, 1024, 1024), 0);  // small
  EXPECT_EQ(rows_alike(2048, 4096, 4096), 2048);
  EXPECT_EQ(rows_alike(2049, 4096, 4096), 0);  // a last round of tiles counts
  EXPECT_EQ(rows_alike(3072, 4096, 4096), 3072);
  EXPECT_EQ(rows_alike(8192, 4096, 4096), 8192);
  EXPECT_EQ(rows_alike(12345, 4096, 4096), 8192);
  EXPECT_EQ(rows_alike(61440, 1024, 4096), 32768);
  EXPECT_EQ(rows_alike(8192, 4100, 4096), 0);  // not of eights
  EXPECT_EQ(rows_alike(8192, 4096, 4100), 0);
}

TEST(TunedProduct, OnACpu) {
  const at::TensorOptions bfloat16 = at::TensorOptions().dtype(at::kBFloat16);
  const at::Tensor x = at::randn({2, 3, 40}, bfloat16), weight = at::randn({24, 40}, bfloat16);
  const at::Tensor expected = at::linear(x, weight);
  EXPECT_TRUE(tuned_product(x, weight).equal(expected));
  const at::Tensor y = at::empty({6, 24}, bfloat16);
  tuned_product_into(y, x.view({6, 40}), weight);
  EXPECT_TRUE(y.view({2, 3, 24}).equal(expected));
  at::Tensor learnt = at::randn({24, 40}).requires_grad_();
  EXPECT_TRUE(tuned_product(at::randn({3, 40}), learnt).requires_grad());
}

}  // namespace
}  // namespace cepe::ops
