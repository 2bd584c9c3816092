// Log-sum-exps of pages on a GPU: every width that has a kernel, one to three blocks of query rows.
#include "gpu.h"
#include "page_sum_cases.h"

namespace cepe::ops {
namespace {

class PageLogSumExpsOnGpu : public test::OnGpu {};

TEST_F(PageLogSumExpsOnGpu, DensePagesOfEveryWidth) {
  for (const int64_t width : {64, 96, 128, 256, 512, 576, 1024})
    for (const int64_t groups : {1, 3})
      for (const int64_t each : {1, 9, 16, 17, 32, 70}) {
        if (width > 256 && groups > 1) continue;  // such pages are states
        test::expect_page_sums(width, groups, each, at::kBFloat16, device());
      }
}

TEST_F(PageLogSumExpsOnGpu, PackedPages) {
  for (const int64_t width : {512, 576, 1024}) {
    if (!device().is_cpu() && !takes_int8_pages(width, device())) GTEST_SKIP() << "no kernel for packed rows here";
    for (const int64_t each : {1, 9, 32, 40}) test::expect_page_sums(width, 1, each, at::kChar, device());
  }
}

}  // namespace
}  // namespace cepe::ops
