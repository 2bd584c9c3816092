#include "ops/paged_attention.h"

#include <ATen/ops/empty.h>

#include <cmath>

#include "base/error.h"
#include "paged_cases.h"

namespace cepe::ops {
namespace {

using test::PagedShape;

TEST(PagedAttention, EachSequenceAttendsToItsOwnPagesAlone) {
  at::manual_seed(1);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const bool latent : {true, false}) {
      test::expect_paged({64, 3, latent, {1, 5, 2}, {{7, 256}, {100}, {3, 0, 130}}}, type, at::kCPU);
      test::expect_paged({576, 1, latent, {9, 70}, {{64, 64, 9}, {33}}}, type, at::kCPU);
    }
  }
}

TEST(PagedAttention, PackedRowsAreKeysAndValues) {
  at::manual_seed(4);
  test::expect_paged({576, 1, true, {9, 70}, {{64, 64, 9}, {33}}}, at::kChar, at::kCPU);
  const at::Tensor packed = int8_rows(at::randn({4, 64})).unsqueeze(1), other = packed.clone();
  const std::vector<std::vector<RowPage>> apart = {{{packed, other}}},
                                          narrow = {{{packed, packed}},
                                                    {{packed.narrow(2, 0, 36).contiguous(), packed}}};
  EXPECT_THROW(page_table(apart, at::kCPU), base::Error);
  EXPECT_THROW(page_table(narrow, at::kCPU), base::Error);
}

TEST(PagedAttention, RowsWithoutPagesOrSequenceBecomeZero) {
  at::manual_seed(2);
  test::expect_paged({64, 2, true, {2, 3, 0, 1}, {{5}, {}, {9}, {0, 0}}}, at::kBFloat16, at::kCPU, 4);
}

TEST(PagedAttention, CausalQueriesSeeTheRowsUpToTheirOwn) {
  at::manual_seed(5);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    test::expect_paged({64, 2, false, {6, 3, 9, 0}, {{16, 16, 2}, {1}, {3}, {8}}, 3}, type, at::kCPU, 2);
    test::expect_paged({64, 1, false, {20, 1}, {{16, 16}, {16, 7}}, 1}, type, at::kCPU);
    test::expect_paged({64, 1, false, {5, 4}, {{3}, {}}, 1}, type, at::kCPU);  // tokens that see nothing
  }
}

TEST(PagedAttention, SequencesMayShareAPage) {
  at::manual_seed(3);
  const at::Tensor shared = at::randn({40, 1, 64}).to(at::kBFloat16);
  const at::Tensor own = at::randn({8, 1, 64}).to(at::kBFloat16);
  const std::vector<std::vector<RowPage>> pages = {{{shared, shared}}, {{own, own}, {shared, shared}}};
  const at::Tensor query = at::randn({1, 1, 64});
  const BatchQueries batch = {at::cat({query, query}), at::tensor({0, 1, 2}, at::kInt), 1};
  const BatchAttention result = paged_attention(batch, page_table(pages, at::kCPU), 0.2);
  for (int64_t i = 0; i < 2; ++i) {
    EXPECT_LT(test::paged_distance(result.output[i], row_attention(query, pages[i], 0.2).output[0].to(at::kDouble)),
              1e-6);
  }
}

TEST(PagedAttention, PagesOfDifferentFormAreRefused) {
  const auto refused = [](const at::Tensor& keys, const at::Tensor& values) {
    const at::Tensor first = at::randn({4, 2, 64}).to(at::kBFloat16);
    const std::vector<std::vector<RowPage>> pages = {{{first, first}}, {{keys, values}}};
    EXPECT_THROW(page_table(pages, at::kCPU), base::Error);
  };
  const at::Tensor same = at::randn({4, 2, 64}).to(at::kBFloat16);
  refused(at::randn({4, 2, 64}), same);
  refused(at::randn({4, 2, 32}).to(at::kBFloat16), same);
  refused(at::randn({4, 1, 64}).to(at::kBFloat16), same);
  refused(same, at::randn({3, 2, 64}).to(at::kBFloat16));
  refused(at::randn({4, 2, 128}).to(at::kBFloat16).narrow(2, 0, 64), same);
  refused(at::randn({4, 2, 2, 64}).to(at::kBFloat16).select(1, 0), same);  // rows further apart
}

TEST(PagedAttention, QueriesAndTablesThatDoNotFitAreRefused) {
  const at::Tensor page = at::randn({4, 2, 64}).to(at::kBFloat16);
  const std::vector<std::vector<RowPage>> pages = {{{page, page}}};
  const PageTable table = page_table(pages, at::kCPU);
  const auto refused = [&](const BatchQueries& batch, const PageTable& against) {
    EXPECT_THROW(paged_attention(batch, against, 1.0), base::Error);
  };
  const at::Tensor first = at::tensor({0, 3}, at::kInt);
  refused({at::randn({3, 1, 64}), first, 3}, table);
  refused({at::randn({3, 2, 32}), first, 3}, table);
  refused({at::randn({3, 2, 64}).to(at::kDouble), first, 3}, table);
  refused({at::randn({3, 2, 64}), at::tensor({0, 1, 3}, at::kInt), 3}, table);
  refused({at::randn({3, 2, 64}), at::tensor({0, 3}, at::kLong), 3}, table);
  PageTable shorter = table;
  shorter.rows = at::empty({0}, at::kInt);
  refused({at::randn({3, 2, 64}), first, 3}, shorter);
}

}  // namespace
}  // namespace cepe::ops
