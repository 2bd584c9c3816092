#include "ops/int8_context.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "distance.h"
#include "int8_bytes.h"
#include "ops/int8_rows.h"

namespace cepe::ops {
namespace {

using test::distance;

// That this processor has.
std::vector<std::pair<std::string, cpu::Int8ContextKernel>> context_kernels() {
  std::vector<std::pair<std::string, cpu::Int8ContextKernel>> found = {
      {"portable", cpu::portable_int8_context_kernel()}, {"portable tiles", cpu::portable_int8_context_tiles()}};
#if defined(__x86_64__)
  if (cpu::level() != cpu::Level::portable) found.emplace_back("AVX2", cpu::avx2_int8_context_kernel());
  found.emplace_back("chosen", cpu::int8_context_kernel());
  if (cpu::has_short_byte_products()) found.emplace_back("AVX-VNNI", cpu::avxvnni_int8_context_kernel());
  if (cpu::has_byte_products()) found.emplace_back("AVX512_VNNI", cpu::avx512vnni_int8_context_kernel());
#endif
  return found;
}

struct Projection {
  std::vector<at::Tensor> pages;  // packed
  at::Tensor keys, values;        // weights

  Projection(const std::vector<int64_t>& rows, int64_t groups, int64_t key_width, int64_t value_width, int64_t width) {
    for (const int64_t count : rows) pages.push_back(int8_rows(at::randn({count, width})));
    keys = at::randn({groups * key_width, width}) / std::sqrt(static_cast<double>(width));
    values = at::randn({groups * value_width, width}) / std::sqrt(static_cast<double>(width));
  }
};

// K or V [M, G, D] in float64 from states and weights in 8 bits, of all pages.
at::Tensor projected(const Projection& given, const at::Tensor& weight, int64_t groups) {
  std::vector<at::Tensor> states;
  for (const at::Tensor& page : given.pages) states.push_back(unpacked_rows(page, at::kDouble));
  const at::Tensor rows = unpacked_rows(int8_rows(weight), at::kDouble);
  return at::matmul(at::cat(states), rows.t()).unflatten(1, {groups, -1});
}

struct Expected {
  at::Tensor output, log_sum_exp, scores;
};
Expected by_definition(const at::Tensor& queries, const Projection& given, double scale) {
  const int64_t groups = queries.size(1);
  const at::Tensor scores =
      at::einsum("rgd,mgd->rgm", {queries.to(at::kDouble), projected(given, given.keys, groups)}) * scale;
  return {at::einsum("rgm,mgd->rgd", {at::softmax(scores, -1), projected(given, given.values, groups)}),
          at::logsumexp(scores, {2}), scores};
}

// 8 bits of a key, a query, a value and a weight are each off by at most 1/254 of the largest beside it.
TEST(Int8Context, IsSoftmaxOverAllRowsOfAllPages) {
  at::manual_seed(1);
  for (const auto& [key_width, value_width, width] :
       std::vector<std::array<int64_t, 3>>{{64, 64, 64}, {128, 128, 96}, {20, 24, 36}, {64, 192, 160}}) {
    for (const auto& [rows, groups] :
         std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 3}, {12, 2}, {37, 2}, {96, 1}}) {
      SCOPED_TRACE("D " + std::to_string(key_width) + " R " + std::to_string(rows));
      const Projection given({3, 256, 130, 64, 1}, groups, key_width, value_width, width);
      const at::Tensor queries = at::randn({rows, groups, key_width});
      const double scale = 1 / std::sqrt(static_cast<double>(key_width));
      const Expected expected = by_definition(queries, given, scale);
      for (const auto& [name, kernel] : context_kernels()) {
        SCOPED_TRACE(name);
        const Int8Context context = project_int8(given.pages, given.keys, given.values, groups, kernel);
        EXPECT_EQ(context.bytes(),
                  int8_context_bytes(std::vector<int64_t>{3, 256, 130, 64, 1}, groups, key_width, value_width));
        const RowAttention result = int8_attention(queries, context, scale, kernel);
        EXPECT_LT(distance(result.output, expected.output), 2e-2);
        EXPECT_LT((result.log_sum_exp - expected.log_sum_exp).abs().max().item<double>(), 2.5e-2);
      }
    }
  }
}

// Each query wants one row of the context, and gets its value: a place of a key or a value taken for another shows.
TEST(Int8Context, EveryRowIsFoundByItsKeyAndGivesItsValue) {
  at::manual_seed(2);
  const int64_t rows = 150, groups = 2, width = 64;
  const Projection given({100, 50}, groups, width, width, 96);
  const at::Tensor keys = projected(given, given.keys, groups), values = projected(given, given.values, groups);
  const at::Tensor queries = (keys / keys.square().sum(-1, true)).to(at::kFloat);  // its own key scores 1
  for (const auto& [name, kernel] : context_kernels()) {
    SCOPED_TRACE(name);
    const Int8Context context = project_int8(given.pages, given.keys, given.values, groups, kernel);
    const RowAttention result = int8_attention(queries, context, 400, kernel);
    EXPECT_LT((result.output - values).abs().max().item<double>(), 1.01 * values.abs().max().item<double>() / 254);
    EXPECT_EQ(result.output.size(0), rows);
  }
}

// The kernels round alike, but for weights, which one looks up to 0.6 %, and sums of float32.
TEST(Int8Context, KernelsAgree) {
  at::manual_seed(3);
  const Projection given({70, 256}, 3, 64, 64, 128);
  const at::Tensor queries = at::randn({25, 3, 64});
  const Int8Context context = project_int8(given.pages, given.keys, given.values, 3, context_kernels().front().second);
  const RowAttention expected = int8_attention(queries, context, 0.2, context_kernels().front().second);
  for (const auto& [name, kernel] : context_kernels()) {
    SCOPED_TRACE(name);
    const Int8Context made = project_int8(given.pages, given.keys, given.values, 3, kernel);
    // A product on the border of two steps may fall to either.
    const at::Tensor &one = made.memory.front(), &other = context.memory.front();
    EXPECT_LT(one.ne(other).sum().item<int64_t>(), made.bytes() / 1000);
    const RowAttention result = int8_attention(queries, context, 0.2, kernel);
    EXPECT_LT(distance(result.output, expected.output), 4e-3);
    EXPECT_LT(distance(result.log_sum_exp, expected.log_sum_exp), 5e-4);
  }
}

// Two rows, of which one scores zero and has a value of zero: the output tells what the other weighs, in steps of 1/255
// of the larger. A weight that is looked up is off by 0.6 % more.
TEST(Int8Context, WeightsAreOffByHalfAStep) {
  at::manual_seed(4);
  Projection given({}, 1, 64, 64, 64);
  at::Tensor states = at::zeros({2, 64});
  states[1][0] = 1;
  given.pages = {int8_rows(states)};
  given.keys = given.values = at::eye(64);
  at::Tensor queries = at::zeros({1024, 1, 64});
  queries.select(2, 0).copy_(at::rand({1024, 1}) * -7);
  const at::Tensor weights = queries.select(2, 0).to(at::kDouble).exp();
  for (const auto& [name, kernel] : context_kernels()) {
    SCOPED_TRACE(name);
    const Int8Context context = project_int8(given.pages, given.keys, given.values, 1, kernel);
    const at::Tensor share = int8_attention(queries, context, 1, kernel).output.select(2, 0).to(at::kDouble);
    const at::Tensor off = share / (1 - share) - weights;
    EXPECT_LT((off.abs() - 0.006 * weights).max().item<double>(), 0.5 / 255 + 3e-4);
    EXPECT_LT(std::abs(off.mean().item<double>()), 1e-4);
  }
}

TEST(Int8Context, ScoresFarApartNeitherOverflowNorVanish) {
  at::manual_seed(5);
  Projection given({64, 64, 64, 64}, 1, 64, 64, 64);
  at::Tensor states = at::randn({64, 64});
  states[7].mul_(1000);
  given.pages[2] = int8_rows(states);
  const at::Tensor queries = at::randn({16, 1, 64});
  const Expected expected = by_definition(queries, given, 1);
  for (const auto& [name, kernel] : context_kernels()) {
    SCOPED_TRACE(name);
    const Int8Context context = project_int8(given.pages, given.keys, given.values, 1, kernel);
    const RowAttention result = int8_attention(queries, context, 1, kernel);
    EXPECT_TRUE(result.output.isfinite().all().item<bool>());
    EXPECT_LT(distance(result.log_sum_exp, expected.log_sum_exp), 1e-2);
  }
}

// Bit for bit, whoever else asks: what a batch_invariant engine promises.
TEST(Int8Context, ARowIsReadAloneAsAmongOthers) {
  at::manual_seed(6);
  const Projection given({256, 90}, 2, 64, 64, 64);
  const Int8Context context = project_int8(given.pages, given.keys, given.values, 2);
  const at::Tensor queries = at::randn({29, 2, 64});
  const RowAttention together = int8_attention(queries, context, 0.2);
  for (const int64_t row : {0, 5, 11, 12, 28}) {
    const RowAttention alone = int8_attention(queries.narrow(0, row, 1), context, 0.2);
    EXPECT_TRUE(alone.output[0].equal(together.output[row])) << row;
    EXPECT_TRUE(alone.log_sum_exp[0].equal(together.log_sum_exp[row])) << row;
  }
}

TEST(Int8Context, PagesAloneAddUpToTheWhole) {
  at::manual_seed(7);
  const Projection given({256, 0, 100, 3}, 2, 64, 64, 64);
  const Int8Context context = project_int8(given.pages, given.keys, given.values, 2);
  const at::Tensor queries = at::randn({3, 2, 64});
  const at::Tensor pages = int8_page_log_sum_exps(queries, context, 0.2);
  ASSERT_EQ(pages.sizes().vec(), (std::vector<int64_t>{4, 3, 2}));
  EXPECT_TRUE(pages[1].eq(-std::numeric_limits<double>::infinity()).all().item<bool>());
  const RowAttention whole = int8_attention(queries, context, 0.2);
  EXPECT_LT(distance(at::logsumexp(pages, {0}), whole.log_sum_exp), 1e-4);
  const at::Tensor scores = by_definition(queries, given, 0.2).scores;
  EXPECT_LT((pages[2] - at::logsumexp(scores.narrow(2, 256, 100), {2})).abs().max().item<double>(), 2.5e-2);
}

TEST(Int8Context, GrowsByPages) {
  at::manual_seed(8);
  const Projection given({256, 10, 70}, 2, 64, 64, 64);
  const auto of = [&](size_t first, size_t count) {
    return project_int8(std::span(given.pages).subspan(first, count), given.keys, given.values, 2);
  };
  Int8Context grown = of(0, 1);
  grown.append(of(1, 2));
  const Int8Context whole = of(0, 3);
  const at::Tensor queries = at::randn({5, 2, 64});
  EXPECT_TRUE(int8_attention(queries, grown, 0.2).output.equal(int8_attention(queries, whole, 0.2).output));
  EXPECT_TRUE(int8_page_log_sum_exps(queries, grown, 0.2).equal(int8_page_log_sum_exps(queries, whole, 0.2)));
  EXPECT_EQ(grown.bytes(), whole.bytes());
}

// What is made page by page, wherever each stands and with other layers beside it, is what one piece would hold, and is
// read like it.
TEST(Int8Context, IsMadeAndReadPageByPageAmongOtherLayers) {
  at::manual_seed(8);
  const std::vector<int64_t> rows = {130, 64, 1, 256, 70};
  const Projection given(rows, 2, 64, 64, 96);
  for (const auto& [name, kernel] : context_kernels()) {
    SCOPED_TRACE(name);
    const Int8Context whole = project_int8(given.pages, given.keys, given.values, 2, kernel);
    std::vector<at::Tensor> memory;  // of three layers
    for (const int64_t count : rows) {
      const Int8PageForm form = int8_page_form(count, 2, 64, 64);
      memory.push_back(at::full({3 * form.blocks, form.block_bytes}, 255, at::kByte));
    }
    const auto of = [&](size_t first, size_t count) {
      return int8_context_of(std::span(memory).subspan(first, count), 1, std::span(rows).subspan(first, count), 2, 64,
                             64);
    };
    for (const size_t page : {3U, 0U, 4U, 1U, 2U})
      project_int8_into(of(page, 1), std::span(given.pages).subspan(page, 1), given.keys, given.values, kernel);
    const Int8Context read = of(0, rows.size());
    EXPECT_EQ(test::bytes_of(read), test::bytes_of(whole));
    EXPECT_EQ(read.bytes(), whole.bytes());
    EXPECT_EQ(read.block_rows, whole.block_rows);
    EXPECT_EQ(read.page_blocks, whole.page_blocks);
    for (const at::Tensor& page : memory) {
      EXPECT_TRUE(page.narrow(0, 0, page.size(0) / 3).eq(255).all().item<bool>());
      EXPECT_TRUE(page.narrow(0, page.size(0) / 3 * 2, page.size(0) / 3).eq(255).all().item<bool>());
    }
    for (const int64_t count : {1, 9, 40}) {
      const at::Tensor queries = at::randn({count, 2, 64});
      EXPECT_TRUE(
          int8_attention(queries, read, 0.2, kernel).output.equal(int8_attention(queries, whole, 0.2, kernel).output));
    }
  }
}

TEST(Int8Context, RefusesMemoryOfOtherPages) {
  const std::vector<int64_t> rows = {130, 64};
  const Projection given(rows, 2, 64, 64, 96);
  const int64_t bytes = int8_page_form(64, 2, 64, 64).block_bytes;
  const std::vector<at::Tensor> memory = {at::zeros({6, bytes}, at::kByte), at::zeros({2, bytes}, at::kByte)};
  const auto of = [&](const std::vector<at::Tensor>& pages, int64_t layer) {
    return int8_context_of(pages, layer, rows, 2, 64, 64);
  };
  const Int8Context context = of(memory, 1);
  project_int8_into(context, given.pages, given.keys, given.values);
  const auto refuses = [](auto&& make) { EXPECT_THROW(make(), base::Error); };
  refuses([&] { of(memory, 2); });
  refuses([&] { of(memory, -1); });
  refuses([&] { of({memory.front()}, 0); });
  refuses([&] { of({memory.front(), memory.back().to(at::kInt)}, 0); });
  refuses([&] { of({memory.front(), memory.back().narrow(1, 0, 64)}, 0); });
  refuses([&] { of({memory.front(), at::zeros({bytes, 2}, at::kByte).t()}, 0); });
  refuses([&] { project_int8_into(context, std::span(given.pages).first(1), given.keys, given.values); });
  refuses([&] { project_int8_into(context, given.pages, given.keys.narrow(0, 0, 64), given.values); });
  refuses([&] { project_int8_into({}, given.pages, given.keys, given.values); });
}

TEST(Int8Context, NothingLeavesZeros) {
  const Int8Context none = project_int8({}, at::randn({64, 32}), at::randn({64, 32}), 1);
  const RowAttention result = int8_attention(at::randn({2, 1, 64}), none, 1);
  EXPECT_TRUE(result.output.eq(0).all().item<bool>());
  EXPECT_TRUE(result.log_sum_exp.eq(-std::numeric_limits<double>::infinity()).all().item<bool>());
  Projection zeros({64}, 1, 64, 64, 32);
  zeros.pages = {int8_rows(at::zeros({70, 32}))};
  const Int8Context context = project_int8(zeros.pages, zeros.keys, zeros.values, 1);
  const RowAttention even = int8_attention(at::zeros({1, 1, 64}), context, 1);
  EXPECT_TRUE(even.output.eq(0).all().item<bool>());
  EXPECT_NEAR(even.log_sum_exp.item<float>(), std::log(70.0), 1e-5);
}

TEST(Int8Context, RefusesOtherShapes) {
  const Projection given({8}, 2, 64, 64, 32);
  const Int8Context context = project_int8(given.pages, given.keys, given.values, 2);
  EXPECT_THROW(int8_attention(at::randn({1, 2, 32}), context, 1), base::Error);
  EXPECT_THROW(int8_attention(at::randn({1, 1, 64}), context, 1), base::Error);
  EXPECT_THROW(int8_attention(at::randn({1, 2, 64}), context, 0), base::Error);
  EXPECT_THROW(project_int8(given.pages, given.keys, given.values, 3), base::Error);
  EXPECT_THROW(project_int8(given.pages, given.keys.narrow(1, 0, 16), given.values.narrow(1, 0, 16), 2), base::Error);
  EXPECT_THROW(project_int8({}, at::randn({64, 30}), at::randn({64, 30}), 2), base::Error);
  const std::vector<at::Tensor> dense = {at::randn({8, 32})};
  EXPECT_THROW(project_int8(dense, given.keys, given.values, 2), base::Error);
}

TEST(Int8Context, WeightsThatAreNotNumbersMakeNoneOfWhateverTheirGroupReads) {
  at::manual_seed(22);
  const at::Tensor queries = at::randn({5, 2, 64});
  using limits = std::numeric_limits<double>;
  for (const double damage : {limits::quiet_NaN(), limits::infinity(), -limits::infinity()}) {
    for (const bool in_keys : {true, false}) {
      Projection given({150}, 2, 64, 64, 32);
      (in_keys ? given.keys : given.values)[64 + 9][3] = damage;  // of the second group
      for (const auto& [name, kernel] : context_kernels()) {
        SCOPED_TRACE(name + (in_keys ? ", keys, " : ", values, ") + std::to_string(damage));
        const Int8Context context = project_int8(given.pages, given.keys, given.values, 2, kernel);
        const at::Tensor output = int8_attention(queries, context, 0.125, kernel).output;
        EXPECT_TRUE(output.select(1, 0).isfinite().all().item<bool>());
        EXPECT_TRUE(output.select(1, 1).isnan().all().item<bool>());
      }
    }
  }
}

TEST(Int8Context, StatesThatAreNotNumbersMakeNoneOfWhateverReadsThem) {
  at::manual_seed(21);
  const at::Tensor queries = at::randn({5, 2, 64});
  using limits = std::numeric_limits<double>;
  for (const double damage : {limits::quiet_NaN(), limits::infinity(), -limits::infinity()}) {
    for (const int64_t row : {0, 70, 149}) {
      Projection given({150}, 2, 64, 64, 32);
      at::Tensor states = at::randn({150, 32});
      states[row][3] = damage;
      given.pages = {int8_rows(states)};
      for (const auto& [name, kernel] : context_kernels()) {
        const Int8Context context = project_int8(given.pages, given.keys, given.values, 2, kernel);
        EXPECT_TRUE(int8_attention(queries, context, 0.125, kernel).output.isnan().all().item<bool>())
            << name << ", row " << row << ", " << damage;
      }
    }
  }
}

}  // namespace
}  // namespace cepe::ops
