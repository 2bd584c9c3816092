#include "ops/page_log_sum_exps.h"

#include <ATen/ops/zeros.h>

#include "expect_error.h"
#include "page_sum_cases.h"

namespace cepe::ops {
namespace {

TEST(PageLogSumExps, AreThoseOfEachPageByItself) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const int64_t groups : {1, 3})
      for (const int64_t each : {1, 9, 40}) test::expect_page_sums(64, groups, each, type, at::kCPU);
  test::expect_page_sums(512, 1, 9, at::kChar, at::kCPU);
}

TEST(PageLogSumExps, OfNoPageThereAreNone) {
  PageTable table;
  table.width = 64;
  table.keys = at::zeros({0}, at::kLong);
  const at::Tensor found = page_log_sum_exps(at::zeros({6, 1, 64}), 2, at::zeros({0}, at::kLong), table, 1);
  EXPECT_EQ(found.sizes(), at::IntArrayRef({0, 3, 1}));
}

TEST(PageLogSumExps, QueryRowsThatArePagesOfNoneAreRefused) {
  PageTable table;
  table.width = 64;
  table.keys = at::zeros({2}, at::kLong);
  const at::Tensor of = at::zeros({2}, at::kLong);
  const auto refused = [&](const at::Tensor& rows, const at::Tensor& sequences_of) {
    test::expect_error(base::ErrorCode::invalid_argument, "query rows must be",
                       [&] { page_log_sum_exps(rows, 2, sequences_of, table, 1); });
  };
  refused(at::zeros({3, 1, 64}), of);
  refused(at::zeros({4, 1, 32}), of);
  refused(at::zeros({4, 2, 64}), of);
  refused(at::zeros({4, 1, 64}), of.narrow(0, 0, 1));
}

}  // namespace
}  // namespace cepe::ops
