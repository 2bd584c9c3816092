// Paged attention on a GPU: every width that has a kernel, one to three blocks of query rows, pages of any length.
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>

#include <array>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "gpu.h"
#include "ops/device.h"
#include "ops/head_product.h"
#include "paged_cases.h"

namespace cepe::ops {
namespace {

using test::PagedShape;

class PagedAttentionOnGpu : public test::OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (test::gpu().device) at::manual_seed(21);
  }
};

const std::vector<std::vector<int64_t>> ragged_pages = {{256, 256, 256, 17}, {1}, {200, 0, 31, 32, 33}};

TEST_F(PagedAttentionOnGpu, LatentPagesOfEveryWidth) {
  for (const int64_t width : {64, 128, 512, 576, 1024}) {
    for (const int64_t rows : {1, 9, 16, 32, 64, 150}) {
      test::expect_paged({width, 1, true, {rows, 1, (rows + 1) / 2}, ragged_pages}, at::kBFloat16, device());
    }
  }
}

TEST_F(PagedAttentionOnGpu, KeysAndValuesOfEveryWidth) {
  for (const int64_t width : {64, 96, 128, 256}) {
    for (const int64_t groups : {1, 3}) {
      for (const int64_t rows : {1, 9, 17, 50, 130}) {
        test::expect_paged({width, groups, false, {rows, 2, (rows + 1) / 2}, ragged_pages}, at::kBFloat16, device());
      }
    }
  }
}

// Up to four query rows over few cached rows, which one cluster of thread blocks takes whole (cuda/paged_cluster.cuh).
TEST_F(PagedAttentionOnGpu, FewRowsOverShortContexts) {
  for (const int64_t width : {64, 128, 256}) {
    for (const int64_t groups : {1, 3, 32}) {
      for (const int64_t rows : {1, 2, 3, 4}) {
        test::expect_paged({width, groups, false, {rows, 1, (rows + 1) / 2}, ragged_pages}, at::kBFloat16, device());
      }
    }
  }
}

// One of each, a whole tile, one more, and more than all blocks of a cluster have at one time.
TEST_F(PagedAttentionOnGpu, FewRowsOverTilesOfEveryLength) {
  for (const int64_t width : {64, 128, 256}) {
    for (const int64_t rows : {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 255, 256}) {
      test::expect_paged({width, 2, false, {1, 2}, {{rows}, {256, rows, rows}}}, at::kBFloat16, device());
    }
    const std::vector<int64_t> small(100, 16);
    test::expect_paged({width, 2, false, {1, 4}, {small, {16, 3, 0, 16, 1}}}, at::kBFloat16, device());
    test::expect_paged({width, 2, false, {4}, {std::vector<int64_t>(32, 256)}}, at::kBFloat16, device());
  }
}

// From clusters of eight blocks down to blocks alone.
TEST_F(PagedAttentionOnGpu, FewRowsOfManySequences) {
  for (const int64_t width : {64, 128, 256}) {
    for (const int64_t most : {1, 2, 4}) {
      for (const int64_t groups : {1, 3, 2}) {
        PagedShape shape{width, groups, false, {}, {}};
        for (int64_t i = 0; i < (groups == 2 ? 300 : 43); ++i) {
          shape.query_rows.push_back(i % 11 == 7 ? 0 : 1 + i % most);
          shape.page_rows.emplace_back(i % 5, 1 + i * 4 % 200);
        }
        test::expect_paged(shape, at::kBFloat16, device(), 5);
      }
    }
  }
}

// Small blocks: more sequences and groups than whole ones at one time, some without a page, one to a few tiles.
TEST_F(PagedAttentionOnGpu, OneRowOfManyShortSequences) {
  for (const int64_t width : {64, 128, 256}) {
    for (const int64_t groups : {3, 32}) {
      PagedShape shape{width, groups, false, {}, {}};
      for (int64_t i = 0; i < 130; ++i) {
        shape.query_rows.push_back(i % 11 == 7 ? 0 : 1);
        shape.page_rows.emplace_back(i % 3, 1 + i * 5 % 64);
      }
      test::expect_paged(shape, at::kBFloat16, device(), 5);
    }
  }
}

// Texts (cuda/causal_rows.cuh): beginning and not, one token, whole tiles and not, several rows a token, sequences
// without tokens or pages, rows of none.
TEST_F(PagedAttentionOnGpu, CausalQueriesOfTexts) {
  for (const int64_t width : {64, 96, 128}) {
    for (const int64_t groups : {1, 3, 32}) {
      for (const int64_t each : {1, 3, 8}) {
        test::expect_paged({width, groups, false, {64 * each}, {{64}}, each}, at::kBFloat16, device());
        test::expect_paged(
            {width, groups, false, {each, 17 * each, 0, 5 * each}, {{256, 9}, {17}, {}, {256, 256, 1}}, each},
            at::kBFloat16, device(), 5);
        test::expect_paged({width, groups, false, {40 * each, 3 * each}, {std::vector<int64_t>(33, 64), {2}}, each},
                           at::kBFloat16, device(), 40);
      }
    }
  }
}

// Pages that are shorter than a tile, or end within one; more sequences than a warp has lanes.
TEST_F(PagedAttentionOnGpu, CausalQueriesOverPagesOfEveryLength) {
  for (const int64_t page_rows : {1, 4, 15, 16, 17, 100}) {
    for (const int64_t last : {int64_t{1}, page_rows}) {
      std::vector<int64_t> pages(7, page_rows);
      pages.back() = last;
      test::expect_paged({128, 2, false, {6, 2}, {pages, {page_rows, last}}, 2}, at::kBFloat16, device());
    }
  }
  PagedShape shape{64, 2, false, {}, {}, 1};
  for (int64_t i = 0; i < 130; ++i) {
    shape.query_rows.push_back(i % 11 == 7 ? 0 : 1 + i * 5 % 40);
    shape.page_rows.emplace_back(i % 4, 64);
    shape.page_rows.back().push_back(40 + i % 24);
  }
  test::expect_paged(shape, at::kBFloat16, device(), 5);
}

TEST_F(PagedAttentionOnGpu, LongerContextsOfFewRowsGoToTheOtherKernel) {
  if (device().is_cpu()) GTEST_SKIP() << "the CPU has one";
  for (const int64_t width : {64, 128, 256}) {
    const auto bytes = [&](size_t pages) {
      const PagedShape shape{width, 2, false, {3}, {std::vector<int64_t>(pages, 256)}};
      test::expect_paged(shape, at::kBFloat16, device());
      const test::PagedCase made = test::make_paged_case(shape, at::kBFloat16, device(), 0.1);
      return paged_attention_bytes(made.batch, page_table(made.pages, device()));
    };
    EXPECT_EQ(bytes(8192 / 256), 16);  // no parts to keep
    EXPECT_GT(bytes(8192 / 256 + 1), 1024);
  }
}

TEST_F(PagedAttentionOnGpu, ManySequencesOfDifferentLengths) {
  for (const int64_t width : {128, 576}) {
    PagedShape shape{width, width == 128 ? 4 : 1, width != 128, {}, {}};
    for (int64_t i = 0; i < 43; ++i) {
      shape.query_rows.push_back(1 + i % 4 * 5);
      shape.page_rows.emplace_back(i % 5, 1 + i * 4);
    }
    test::expect_paged(shape, at::kBFloat16, device());
  }
}

// Where the kernel takes 64 query rows and 64 cached rows at once: one of each, a whole tile, one more, ends of pages
// within a tile and within eight rows of it, more units than clusters. Its shapes for up to 32, up to 64 and more query
// rows.
TEST_F(PagedAttentionOnGpu, LatentTilesOfEveryLength) {
  for (const int64_t width : {512, 576, 1024}) {
    for (const int64_t rows : {1, 7, 8, 63, 64, 65, 128, 256}) {
      for (const int64_t most : {32, 64, 65})
        test::expect_paged({width, 1, true, {32, most}, {{rows}, {256, rows, rows}}}, at::kBFloat16, device());
    }
    test::expect_paged({width, 1, true, {2048, 1}, {{256, 256, 41}, {256}}}, at::kBFloat16, device());
  }
}

// So many query rows of one sequence that they are two products (cuda/latent_products.cuh): whole tiles and not, pages
// that are short, empty or of one row, rows of no sequence.
std::vector<int64_t> many_pages() {
  std::vector<int64_t> pages(20, 256);
  pages[3] = 17;
  pages[7] = 0;
  pages[11] = 1;
  pages[12] = 128;
  pages[13] = 129;
  pages[19] = 200;
  return pages;
}

TEST_F(PagedAttentionOnGpu, VeryManyLatentRowsOfOneSequence) {
  for (const auto& [width, rows, spare] :
       std::vector<std::array<int64_t, 3>>{{1024, 2048, 0},
                                           {1024, 2001, 7},
                                           {1024, 1500, 0},
                                           {1024, 4000, 96},
                                           {1024, 4600, 8},  // parts of more tiles than clusters take at one time
                                           {512, 4096, 0},
                                           {512, 4095, 1}}) {
    const PagedShape shape{width, 1, true, {rows}, {many_pages()}};
    test::expect_paged(shape, at::kBFloat16, device(), spare);
    if (device().is_cpu()) continue;
    test::PagedCase made = test::make_paged_case(shape, at::kBFloat16, device(), 0.03, spare);
    made.batch.rows = made.batch.rows.to(at::kBFloat16);
    EXPECT_GT(paged_attention_bytes(made.batch, page_table(made.pages, device())), rows * 20 * 256 * 2);
  }
}

// One sequence, the whole device's: fewer tiles than blocks and more, one tile, an odd number of them; parts without a
// row; rows of no sequence; more query rows than a unit has.
TEST_F(PagedAttentionOnGpu, LatentRowsOfOneSequence) {
  std::vector<std::vector<int64_t>> sequences = {{}, {1}, {64, 64, 63}};
  for (const size_t pages : {1, 32, 33, 70}) sequences.emplace_back(pages, 256);
  sequences.emplace_back(60, 1);
  sequences.back().front() = 256;
  std::fill_n(sequences.back().begin() + 20, 15, 0);
  sequences.emplace_back();
  for (int i = 0; i < 3; ++i) {
    const std::vector<int64_t> pages = many_pages();
    sequences.back().insert(sequences.back().end(), pages.begin(), pages.end());
  }
  for (const int64_t width : {512, 576, 1024}) {
    for (const auto& pages : sequences) {
      for (const int64_t rows : {1, 16, 17, 33, 64, 65})
        test::expect_paged({width, 1, true, {rows}, {pages}}, at::kBFloat16, device(), rows % 2 * 3);
    }
  }
}

// What attention and then its product with each head's matrix are, the same bits where row_product has that: heads of a
// group, none and few cached rows, parts of all multiprocessors.
TEST_F(PagedAttentionOnGpu, LatentRowsGoIntoHeads) {
  for (const int64_t width : {512, 576, 1024}) {
    for (const auto& [heads, groups, head_width] :
         std::vector<std::array<int64_t, 3>>{{9, 3, 64}, {32, 32, 128}, {32, 8, 96}, {6, 6, 80}}) {
      for (const int64_t tokens : {1, 2, 3}) {
        for (const int64_t pages : {0, 1, 40}) {
          PagedShape shape{width, 1, true, {}, {}};
          for (int64_t i = 0; i < tokens; ++i) {
            shape.query_rows.push_back(heads);
            shape.page_rows.emplace_back(i == 1 ? 1 : pages, i == 1 ? 17 : 256);
          }
          test::PagedCase made = test::make_paged_case(shape, at::kBFloat16, device(), 0.3);
          made.batch.rows = made.batch.rows.to(at::kBFloat16);
          const PageTable table = page_table(made.pages, device());
          const at::Tensor weight = at::randn({groups * head_width, width}).to(device(), at::kBFloat16);
          const BatchAttention apart = paged_attention(made.batch, table, 0.3, at::kBFloat16);
          synchronise(device());
          const HeadAttention together = attention_into_heads(made.batch, table, 0.3, weight, heads, groups);
          const at::Tensor product = head_product(apart.output.reshape({-1, heads, width}), weight, groups);
          const double far = (together.output - product).abs().max().item<double>();
          const bool by_rows = tokens * heads / groups <= 4;  // more are ATen's products
          EXPECT_LE(far, by_rows ? 0 : product.abs().max().item<double>() / 100)
              << width << " " << heads << " " << tokens << " " << pages;
          EXPECT_TRUE(together.log_sum_exp.equal(apart.log_sum_exp));
        }
      }
    }
  }
}

// Scores of some hundreds, of which each tile has others.
TEST_F(PagedAttentionOnGpu, LargeScoresOfVeryManyRowsNeitherOverflowNorVanish) {
  for (const double scale : {0.5, 3.0}) {
    test::PagedCase made =
        test::make_paged_case({1024, 1, true, {2048}, {many_pages()}}, at::kBFloat16, device(), scale);
    if (!device().is_cpu()) made.batch.rows = made.batch.rows.to(at::kBFloat16);
    const PageTable table = page_table(made.pages, device());
    const BatchAttention result = paged_attention(made.batch, table, scale);
    EXPECT_LT(test::paged_distance(result.output, made.output), 1e-2);
    EXPECT_LT(test::paged_distance(result.log_sum_exp, made.log_sum_exp), 1e-4);
    for (int again = 0; again < 3; ++again)
      EXPECT_TRUE(paged_attention(made.batch, table, scale).output.equal(result.output));
  }
}

TEST_F(PagedAttentionOnGpu, SixtyFourLatentSequencesOfDifferentLengths) {
  for (const int64_t width : {512, 576, 1024}) {
    PagedShape shape{width, 1, true, {}, {}};
    for (int64_t i = 0; i < 64; ++i) {
      shape.query_rows.push_back(i % 7 == 3 ? 0 : i % 5 == 0 ? 80 : 32);
      shape.page_rows.emplace_back(i % 6, i % 2 == 0 ? 256 : 1 + i * 4);
    }
    test::expect_paged(shape, at::kBFloat16, device());
  }
}

TEST_F(PagedAttentionOnGpu, PackedRowsOfEveryWidthAndLength) {
  if (!device().is_cpu() && !takes_int8_pages(1024, device())) GTEST_SKIP() << "no kernel for packed rows here";
  for (const int64_t width : {512, 576, 1024}) {
    for (const int64_t rows : {1, 9, 16, 32, 64, 150}) {
      test::expect_paged({width, 1, true, {rows, 1, (rows + 1) / 2}, ragged_pages}, at::kChar, device());
    }
    for (const int64_t rows : {1, 7, 8, 16, 31, 32, 33, 63, 64, 65, 128, 256}) {
      test::expect_paged({width, 1, true, {32, 65}, {{rows}, {256, rows, rows}}}, at::kChar, device());
    }
    test::expect_paged({width, 1, true, {2048, 1}, {{256, 256, 41}, {256}}}, at::kChar, device());
    test::expect_paged({width, 1, true, {2, 3, 0, 1}, {{5}, {}, {9}, {0, 0}}}, at::kChar, device(), 40);
    PagedShape shape{width, 1, true, {}, {}};
    for (int64_t i = 0; i < 64; ++i) {
      shape.query_rows.push_back(i % 7 == 3 ? 0 : i % 5 == 0 ? 80 : 32);
      shape.page_rows.emplace_back(i % 6, i % 2 == 0 ? 256 : 1 + i * 4);
    }
    test::expect_paged(shape, at::kChar, device());
  }
}

// Scores of some hundreds that grow from page to page, rows of zeros, and rows a million times as large as others.
TEST_F(PagedAttentionOnGpu, PackedRowsOfVeryDifferentScales) {
  if (!device().is_cpu() && !takes_int8_pages(1024, device())) GTEST_SKIP() << "no kernel for packed rows here";
  const at::Tensor query = at::randn({5, 1, 512}).to(at::kBFloat16).to(at::kFloat);
  std::vector<RowPage> there, here;
  for (int page = 0; page < 6; ++page) {
    at::Tensor states = at::randn({100, 512}) + query[0] * (0.1 * page);
    states.narrow(0, 10, 5).zero_();
    states.narrow(0, 50, 20).mul_(1e-6);
    const at::Tensor packed = int8_rows(states);
    const at::Tensor dense = unpacked_rows(packed, at::kFloat).unsqueeze(1), moved = packed.to(device()).unsqueeze(1);
    here.push_back({dense, dense});
    there.push_back({moved, moved});
  }
  const std::vector<std::vector<RowPage>> sequences = {there};
  const BatchQueries batch = {query.to(device()), at::tensor({0, 5}, at::kInt).to(device()), 5};
  for (const double scale : {1.0, 1e-3}) {
    const RowAttention expected = row_attention(query, here, scale);
    const BatchAttention result = paged_attention(batch, page_table(sequences, device()), scale);
    EXPECT_LT(test::paged_distance(result.output, expected.output.to(at::kDouble)), 2e-2);
    EXPECT_LT(test::paged_distance(result.log_sum_exp, expected.log_sum_exp.to(at::kDouble)), 1e-4);
  }
}

TEST_F(PagedAttentionOnGpu, SequencesMaySharePages) {
  for (const int64_t width : {512, 1024}) {
    std::vector<RowPage> pages;
    for (const int64_t rows : {256, 256, 70}) {
      const at::Tensor states = at::randn({rows, 1, width}).to(device(), at::kBFloat16);
      pages.push_back({states, states});
    }
    const std::vector<std::vector<RowPage>> apart(40, pages), together = {pages};
    const at::Tensor queries = at::randn({int64_t{40} * 32, 1, width}).to(device(), at::kBFloat16);
    std::vector<int32_t> first;
    for (int32_t i = 0; i <= 40; ++i) first.push_back(i * 32);
    const BatchQueries each = {queries, at::tensor(first, at::kInt).to(device()), 32};
    const BatchQueries all = {queries, at::tensor({0, 40 * 32}, at::kInt).to(device()), int64_t{40} * 32};
    const BatchAttention shared = paged_attention(each, page_table(apart, device()), 0.03);
    const BatchAttention once = paged_attention(all, page_table(together, device()), 0.03);
    EXPECT_LT(test::paged_distance(shared.output, once.output.to(at::kCPU, at::kDouble)), 6e-3);
    EXPECT_LT(test::paged_distance(shared.log_sum_exp, once.log_sum_exp.to(at::kCPU, at::kDouble)), 1e-3);
  }
}

TEST_F(PagedAttentionOnGpu, LatentRowsMayStandApartAtAnyMultipleOf16Bytes) {
  const at::Tensor wide = at::randn({300, 1, 1024 + 24}).to(device(), at::kBFloat16);
  const at::Tensor rows = wide.narrow(2, 8, 1024), dense = rows.contiguous();
  const std::vector<std::vector<RowPage>> pages = {
      {{rows.narrow(0, 0, 256), rows.narrow(0, 0, 256)}, {rows.narrow(0, 256, 44), rows.narrow(0, 256, 44)}}};
  const std::vector<std::vector<RowPage>> same = {
      {{dense.narrow(0, 0, 256), dense.narrow(0, 0, 256)}, {dense.narrow(0, 256, 44), dense.narrow(0, 256, 44)}}};
  const BatchQueries batch = {at::randn({33, 1, 1024}).to(device()), at::tensor({0, 33}, at::kInt).to(device()), 33};
  EXPECT_TRUE(paged_attention(batch, page_table(pages, device()), 0.03)
                  .output.equal(paged_attention(batch, page_table(same, device()), 0.03).output));
}

TEST_F(PagedAttentionOnGpu, RowsWithoutPagesOrSequenceBecomeZero) {
  for (const int64_t width : {64, 96, 128, 256})
    test::expect_paged({width, 2, false, {2, 3, 0, 1}, {{5}, {}, {9}, {0, 0}}}, at::kBFloat16, device(), 4);
  test::expect_paged({128, 3, false, {0, 0}, {{5}, {}}}, at::kBFloat16, device(), 3);
  test::expect_paged({1024, 1, true, {2, 3, 0, 1}, {{5}, {}, {9}, {0, 0}}}, at::kBFloat16, device(), 40);
  test::expect_paged({512, 1, true, {3, 2}, {{}, {}}}, at::kBFloat16, device());
}

TEST_F(PagedAttentionOnGpu, LargeScoresNeitherOverflowNorVanish) {
  // Scores of some hundreds that grow from page to page, so that what was summed before must be scaled again.
  const at::Tensor query = at::randn({5, 1, 512}).to(at::kBFloat16).to(at::kFloat);
  std::vector<RowPage> pages;
  for (int page = 0; page < 6; ++page) {
    const at::Tensor states = (at::randn({64, 1, 512}) + query.narrow(0, 0, 1) * (0.1 * page)).to(at::kBFloat16);
    pages.push_back({states, states});
  }
  const RowAttention expected = row_attention(query, pages, 1.0);
  for (RowPage& page : pages) page.values = page.keys = page.keys.to(device());
  const BatchQueries batch = {query.to(device()), at::tensor({0, 5}, at::kInt).to(device()), 5};
  const std::vector<std::vector<RowPage>> sequences = {pages};
  const BatchAttention result = paged_attention(batch, page_table(sequences, device()), 1.0);
  EXPECT_LT(test::paged_distance(result.output, expected.output.to(at::kDouble)), 2e-2);
  EXPECT_LT(test::paged_distance(result.log_sum_exp, expected.log_sum_exp.to(at::kDouble)), 1e-4);
}

TEST_F(PagedAttentionOnGpu, LargeScoresOfFewRowsNeitherOverflowNorVanish) {
  for (const int64_t width : {64, 128, 256}) {
    for (const int64_t rows : {1, 2, 4}) {
      const at::Tensor query = at::randn({rows, 2, width}).to(at::kBFloat16).to(at::kFloat);
      std::vector<RowPage> pages;
      for (int page = 0; page < 12; ++page) {
        const at::Tensor keys = (at::randn({256, 2, width}) + query.narrow(0, 0, 1) * (0.2 * page)).to(at::kBFloat16);
        pages.push_back({keys, at::randn({256, 2, width}).to(at::kBFloat16)});
      }
      const RowAttention expected = row_attention(query, pages, 1.0);
      for (RowPage& page : pages) page = {page.keys.to(device()), page.values.to(device())};
      const BatchQueries batch = {query.to(device()),
                                  at::tensor({0, static_cast<int32_t>(rows)}, at::kInt).to(device()), rows};
      const std::vector<std::vector<RowPage>> sequences = {pages};
      const BatchAttention result = paged_attention(batch, page_table(sequences, device()), 1.0);
      EXPECT_LT(test::paged_distance(result.output, expected.output.to(at::kDouble)), 2e-2);
      EXPECT_LT(test::paged_distance(result.log_sum_exp, expected.log_sum_exp.to(at::kDouble)), 1e-4);
    }
  }
}

TEST_F(PagedAttentionOnGpu, RowsOfAPageMayStandApart) {
  const at::Tensor both = at::randn({100, 2, 3, 64}).to(device(), at::kBFloat16);  // keys and values of a token
  const std::vector<std::vector<RowPage>> pages = {{{both.select(1, 0), both.select(1, 1)}}};
  const std::vector<std::vector<RowPage>> dense = {{{both.select(1, 0).contiguous(), both.select(1, 1).contiguous()}}};
  const BatchQueries batch = {at::randn({3, 3, 64}).to(device()), at::tensor({0, 3}, at::kInt).to(device()), 3};
  EXPECT_TRUE(paged_attention(batch, page_table(pages, device()), 0.125)
                  .output.equal(paged_attention(batch, page_table(dense, device()), 0.125).output));
}

TEST_F(PagedAttentionOnGpu, TheSameBatchTwiceIsTheSameBitForBit) {
  for (const int64_t width : {512, 576, 1024}) {
    for (const auto& [rows, type] : {std::pair{32, at::kBFloat16}, {300, at::kBFloat16}, {300, at::kChar}}) {
      if (type == at::kChar && !device().is_cpu() && !takes_int8_pages(width, device())) continue;
      const test::PagedCase made =
          test::make_paged_case({width, 1, true, {rows, 7}, {{256, 256, 90}, {256, 1}}}, type, device(), 0.03);
      const PageTable table = page_table(made.pages, device());
      const at::Tensor first = paged_attention(made.batch, table, 0.03).output;
      for (int again = 0; again < 5; ++again) EXPECT_TRUE(paged_attention(made.batch, table, 0.03).output.equal(first));
    }
  }
}

TEST_F(PagedAttentionOnGpu, FewRowsTwiceAreTheSameBitForBit) {
  for (const int64_t width : {64, 128, 256}) {
    const test::PagedCase made =
        test::make_paged_case({width, 32, false, {4, 1}, {{256, 256, 90}, {256, 1}}}, at::kBFloat16, device(), 0.1);
    const PageTable table = page_table(made.pages, device());
    const at::Tensor first = paged_attention(made.batch, table, 0.1).output;
    for (int again = 0; again < 20; ++again) EXPECT_TRUE(paged_attention(made.batch, table, 0.1).output.equal(first));
  }
}

TEST_F(PagedAttentionOnGpu, AWorkspaceTooSmallIsRefused) {
  if (device().is_cpu()) GTEST_SKIP() << "the CPU needs none";
  const test::PagedCase made = test::make_paged_case({64, 1, true, {3}, {{20}}}, at::kBFloat16, device(), 0.1);
  const PageTable table = page_table(made.pages, device());
  BatchAttention result = paged_attention(made.batch, table, 0.1);
  result.workspace = result.workspace.narrow(0, 0, result.workspace.numel() - 16);
  EXPECT_THROW(paged_attention(made.batch, table, 0.1, result), base::Error);
}

}  // namespace
}  // namespace cepe::ops
