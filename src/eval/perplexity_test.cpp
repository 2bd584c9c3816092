#include "eval/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "counted_windows.h"
#include "expect_error.h"

namespace cepe::eval {
namespace {

using base::ErrorCode;
using test::counting;
using test::expect_error;
using test::joined;
using test::small_windows;
using test::windows_of;
using testing::ElementsAre;
using text::Token;

// What the scorer is given for each window.
struct Call {
  std::vector<Token> context, window;
};
std::vector<Call> calls_of(const WindowSet& set, int64_t length, const PerplexityOptions& options) {
  std::vector<Call> calls;
  measure_perplexity(set, length, options, 8, [&](auto context, auto window, int64_t targets) {
    calls.push_back({joined(context), {window.begin(), window.end()}});
    return std::vector<float>(static_cast<size_t>(targets), -1.0F);
  });
  return calls;
}

TEST(Perplexity, TheTargetsAreTheSameForEveryLength) {
  const WindowSet set = windows_of({100, 90, 200}, small_windows());
  const auto none = calls_of(set, 0, small_windows()), some = calls_of(set, 6, small_windows()),
             all = calls_of(set, 20, small_windows());
  ASSERT_EQ(none.size(), 9U);
  for (size_t i = 0; i < none.size(); ++i) {
    EXPECT_EQ(none[i].window, some[i].window);
    EXPECT_EQ(none[i].window, all[i].window);
    EXPECT_EQ(none[i].context.size(), 0U);
    // The text just before the window.
    EXPECT_EQ(some[i].context, counting(some[i].window.front() - 6, 6));
    EXPECT_EQ(all[i].context, counting(all[i].window.front() - 20, 20));
  }
}

TEST(Perplexity, PoolsOverTokensAndTakesTheErrorOverDocuments) {
  PerplexityOptions options = small_windows();
  options.samples = 1;
  // Documents whose tokens cost 1, 2 and 6 nats.
  const WindowSet set = windows_of({100, 100, 100}, options);
  const auto result = measure_perplexity(set, 6, options, 8, [](auto, auto window, int64_t targets) {
    const std::array cost = {1.0F, 2.0F, 6.0F};
    return std::vector<float>(static_cast<size_t>(targets), -cost[static_cast<size_t>(window.front() / 1000)]);
  });
  EXPECT_DOUBLE_EQ(result.nll, 3);
  EXPECT_DOUBLE_EQ(result.perplexity(), std::exp(3.0));
  EXPECT_EQ(result.tokens, 12);
  EXPECT_EQ(result.documents, 3);
  ASSERT_EQ(result.by_document.size(), 3U);
  EXPECT_EQ(result.by_document[2].id, "2");
  EXPECT_DOUBLE_EQ(result.by_document[2].nll, 6);
  EXPECT_EQ(result.by_document[2].tokens, 4);
  // sqrt(((1-3)^2 + (2-3)^2 + (6-3)^2) / (3 * 2))
  ASSERT_TRUE(result.standard_error);
  EXPECT_DOUBLE_EQ(*result.standard_error, std::sqrt(14.0 / 6));
}

TEST(Perplexity, StandardErrorOfDocumentsOfUnequalLength) {
  // 8 nats in 2 tokens, 4 in 4: m = 2, apart 4 and -4.
  const std::vector<DocumentLoss> documents = {{8, 2}, {4, 4}};
  EXPECT_DOUBLE_EQ(*standard_error(documents), std::sqrt(2.0 * 32) / 6);
  EXPECT_FALSE(standard_error(std::span(documents).first(1)));
}

TEST(Perplexity, JsonNamesWhatTheTableShows) {
  PerplexityResult result;
  result.context_tokens = 2048, result.nll = 2, result.tokens = 256, result.documents = 1;
  const base::OrderedJson line = to_json(result);
  std::vector<std::string> names;
  for (const auto& [name, value] : line.items()) names.push_back(name);
  EXPECT_THAT(names, ElementsAre("context_tokens", "perplexity", "nll", "stderr", "tokens", "documents", "seconds",
                                 "peak_memory_bytes"));
  EXPECT_TRUE(line["stderr"].is_null());
  EXPECT_DOUBLE_EQ(line["perplexity"], std::exp(2.0));
  result.standard_error = 0.25;
  EXPECT_DOUBLE_EQ(to_json(result)["stderr"], 0.25);
  EXPECT_NE(table_row(result).find("7.389"), std::string::npos);
  EXPECT_EQ(table_row(result).size(), table_head().size());
}

TEST(Perplexity, ANllByDocumentIsTheMeanOverAllItsTargetTokens) {
  const WindowSet set = windows_of({100}, small_windows());
  size_t call = 0;
  const auto result = measure_perplexity(set, 0, small_windows(), 8, [&](auto, auto, int64_t) {
    const float cost = std::array{1.0F, 2.0F, 6.0F}.at(call++);
    return std::vector<float>{-cost, -cost, -cost, -cost};
  });
  ASSERT_EQ(result.by_document.size(), 1U);
  EXPECT_DOUBLE_EQ(result.by_document[0].nll, 3);
  EXPECT_EQ(result.by_document[0].tokens, 12);
}

TEST(Perplexity, JsonHasTheDocumentsWhereTheyAreAskedFor) {
  PerplexityResult result;
  result.by_document = {{"a", 1.5, 16, "0f"}, {"b", 2, 32, "1e"}};
  EXPECT_FALSE(to_json(result).contains("by_document"));
  EXPECT_EQ(to_json(result, true)["by_document"].dump(),
            R"([{"id":"a","nll":1.5,"tokens":16,"targets":"0f"},{"id":"b","nll":2.0,"tokens":32,"targets":"1e"}])");
}

TEST(Perplexity, DigestsTellWhetherTheSameTargetsWereScored) {
  const auto digests = [](const PerplexityOptions& options, int64_t length) {
    const auto scored = [](auto, auto, int64_t targets) {
      return std::vector<float>(static_cast<size_t>(targets), -1.0F);
    };
    const auto result = measure_perplexity(windows_of({100, 90}, options), length, options, 8, scored);
    return std::vector<std::string>{result.by_document.at(0).targets, result.by_document.at(1).targets};
  };
  PerplexityOptions options = small_windows();
  const auto own = digests(options, 0);
  EXPECT_EQ(own[0].size(), 16U);
  EXPECT_NE(own[0], own[1]);
  EXPECT_EQ(own, digests(options, 20));
  options.room = 20, options.direct_tokens = 3, options.context_tokens = {0, 6};
  EXPECT_EQ(own, digests(options, 6)) << "the room alone decides the places";
  options.room = 21;
  EXPECT_NE(own, digests(options, 6));
}

TEST(Perplexity, ScoresThatAreNoNumbersNameTheDocumentAndWhatIsDamaged) {
  const WindowSet set = windows_of({100}, small_windows());
  expect_error(ErrorCode::corrupt, "document '0': its scores are not finite numbers", [&] {
    measure_perplexity(set, 0, small_windows(), 8, [](auto, auto, int64_t) {
      return std::vector<float>{-1, -1, -1, std::nanf("")};
    });
  });
}

TEST(Perplexity, ScoresThatAreNoneAreADefect) {
  const WindowSet set = windows_of({100}, small_windows());
  const auto measured_with = [&](std::vector<float> values) {
    measure_perplexity(set, 0, small_windows(), 8, [&](auto, auto, int64_t) { return values; });
  };
  expect_error(ErrorCode::internal, "4 values expected, 3 given", [&] { measured_with({-1, -1, -1}); });
}

}  // namespace
}  // namespace cepe::eval
