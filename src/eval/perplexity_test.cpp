#include "eval/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <numeric>

#include "expect_error.h"

namespace cepe::eval {
namespace {

using base::ErrorCode;
using context::Chunk;
using test::expect_error;
using testing::ElementsAre;
using text::Token;

// One id a byte; nothing else of a tokenizer is needed here.
class Bytes : public text::Tokenizer {
 public:
  std::vector<Token> encode(std::string_view text, const text::EncodeOptions& /*options*/) const override {
    return {text.begin(), text.end()};
  }
  std::unique_ptr<text::Detokenizer> detokenizer(bool /*skip_special*/) const override { return nullptr; }
  int64_t vocabulary_size() const override { return 128; }
  std::optional<Token> id_of(std::string_view /*token*/) const override { return std::nullopt; }
  std::string token_of(Token /*id*/) const override { return ""; }
  bool is_special(Token /*id*/) const override { return false; }
};

std::vector<Token> counting(Token first, size_t count) {
  std::vector<Token> ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

PerplexityOptions small() {
  PerplexityOptions options;
  options.decoder_tokens = 10;
  options.target_tokens = 4;
  options.context_tokens = {0, 6, 20};
  options.samples = 3;
  options.seed = 5;
  return options;
}

// Documents of ids 1000 d .. 1000 d + length - 1: every id says where it comes from.
WindowSet windows_of(const std::vector<size_t>& lengths, const PerplexityOptions& options,
                     std::optional<Token> beginning = {}) {
  WindowSet set;
  for (size_t d = 0; d < lengths.size(); ++d)
    draw_windows(counting(static_cast<Token>(1000 * d), lengths[d]), options, beginning, set);
  return set;
}

std::vector<Token> joined(std::span<const Chunk> chunks) {
  std::vector<Token> ids;
  for (const Chunk& chunk : chunks) ids.insert(ids.end(), chunk.ids.begin(), chunk.ids.end());
  return ids;
}

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
  const WindowSet set = windows_of({100, 90, 200}, small());
  const auto none = calls_of(set, 0, small()), some = calls_of(set, 6, small()), all = calls_of(set, 20, small());
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

TEST(Perplexity, WindowsLieAtDifferentPlacesInsideTheirDocument) {
  const WindowSet set = windows_of({100}, small());
  for (size_t i = 0; i < set.windows.size(); ++i) {
    EXPECT_EQ(set.windows[i].decoder.size(), 10U);
    EXPECT_GE(set.windows[i].context.front(), 0);
    EXPECT_LE(set.windows[i].decoder.back(), 99);
    EXPECT_TRUE(i == 0 || set.windows[i].decoder.front() > set.windows[i - 1].decoder.front());
  }
}

TEST(Perplexity, DocumentsThatAreTooShortAreCountedAndLeftOutAtEveryLength) {
  const WindowSet set = windows_of({29, 100, 5, 30}, small());
  EXPECT_EQ(set.too_short, 2);
  EXPECT_EQ(set.documents, 2);
  EXPECT_EQ(set.windows.size(), 3U + 1U) << "30 tokens hold one place for 20 + 10";
  EXPECT_EQ(calls_of(set, 0, small()).size(), 4U);
}

TEST(Perplexity, TheSameSeedDrawsTheSamePlaces) {
  const auto places = [](uint64_t seed) {
    PerplexityOptions options = small();
    options.seed = seed;
    std::vector<Token> first;
    for (const Window& window : windows_of({500, 500}, options).windows) first.push_back(window.decoder.front());
    return first;
  };
  EXPECT_EQ(places(1), places(1));
  EXPECT_NE(places(1), places(2));
  EXPECT_NE(places(1), places(1 + (uint64_t{1} << 32))) << "all bits of the seed count";
  const std::vector<Token> both = places(1);
  EXPECT_NE(both[0], both[3] - 1000) << "each document has places of its own";
}

TEST(Perplexity, ABeginningTakesOnePlaceInTheWindowAndIsNoTarget) {
  const WindowSet set = windows_of({29}, small(), 7);
  ASSERT_EQ(set.windows.size(), 1U) << "20 + 9 tokens of text";
  EXPECT_EQ(set.windows[0].decoder.size(), 10U);
  EXPECT_EQ(set.windows[0].decoder[0], 7);
  EXPECT_EQ(set.windows[0].decoder[1], 20);
}

TEST(Perplexity, ContextOfAnotherIsAsLongAndNeverTheDocumentsOwn) {
  PerplexityOptions options = small();
  const WindowSet set = windows_of({100, 90, 200}, options);
  const auto own = calls_of(set, 20, options);
  options.source = ContextSource::other;
  const auto other = calls_of(set, 20, options), again = calls_of(set, 20, options);
  for (size_t i = 0; i < other.size(); ++i) {
    EXPECT_EQ(other[i].window, own[i].window);
    EXPECT_EQ(other[i].context.size(), 20U);
    EXPECT_EQ(other[i].context.front() / 1000, (set.windows[i].document + 1) % 3);
    EXPECT_EQ(other[i].context, again[i].context);
  }
  // A document with fewer windows lends them again.
  const auto uneven = calls_of(windows_of({30, 100}, small()), 20, options);
  ASSERT_EQ(uneven.size(), 4U);
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(uneven[i].context, counting(0, 20));
}

TEST(Perplexity, ChunksNearestToTheWindowAreWhole) {
  const std::vector<Token> ids = counting(0, 20);
  const auto longer = chunks_before(ids, 19, 8), shorter = chunks_before(ids, 16, 8);
  ASSERT_EQ(longer.size(), 3U);
  EXPECT_EQ(longer[0].ids, counting(1, 3));
  EXPECT_EQ(longer[1].ids, shorter[0].ids) << "a longer context keeps the chunks of a shorter one";
  EXPECT_EQ(longer[2].ids, shorter[1].ids);
  EXPECT_EQ(chunks_before(ids, 0, 8).size(), 0U);
  EXPECT_EQ(chunks_before(ids, 20, 32).size(), 1U);
  expect_error(ErrorCode::invalid_argument, "21 tokens from a text of 20", [&] { chunks_before(ids, 21, 8); });
}

TEST(Perplexity, PoolsOverTokensAndTakesTheErrorOverDocuments) {
  PerplexityOptions options = small();
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

TEST(Perplexity, ScoresThatAreNoneAreADefect) {
  const WindowSet set = windows_of({100}, small());
  const auto measured_with = [&](std::vector<float> values) {
    measure_perplexity(set, 0, small(), 8, [&](auto, auto, int64_t) { return values; });
  };
  expect_error(ErrorCode::internal, "4 finite values expected", [&] { measured_with({-1, -1, -1}); });
  expect_error(ErrorCode::internal, "4 finite values expected", [&] { measured_with({-1, -1, -1, std::nanf("")}); });
}

TEST(Perplexity, OptionsOutOfRangeAreNamed) {
  const auto refused = [](const std::string& text, const auto& change) {
    PerplexityOptions options = small();
    change(options);
    expect_error(ErrorCode::invalid_argument, text, [&] { validate(options); });
  };
  refused("decoder-tokens 1", [](auto& options) { options.decoder_tokens = 1; });
  refused("target-tokens 10", [](auto& options) { options.target_tokens = 10; });
  refused("target-tokens 0", [](auto& options) { options.target_tokens = 0; });
  refused("context-tokens -1", [](auto& options) { options.context_tokens = {0, -1}; });
  refused("context-tokens", [](auto& options) { options.context_tokens.clear(); });
  refused("samples 0", [](auto& options) { options.samples = 0; });
  refused("documents -1", [](auto& options) { options.documents = -1; });
  EXPECT_NO_THROW(validate(small()));
  expect_error(ErrorCode::invalid_argument, "own, other", [] { context_source("mine"); });
}

// A corpus on disk.
class PerplexityCorpus : public testing::Test {
 protected:
  base::Path file =
      std::filesystem::temp_directory_path() / ("cepe-perplexity-" + std::to_string(::getpid()) + ".jsonl");
  Bytes tokenizer;

  void TearDown() override { std::filesystem::remove(file); }
  WindowSet draw(const std::vector<std::string>& texts, const PerplexityOptions& options) {
    std::ofstream out(file);
    for (const std::string& text : texts) out << base::Json{{"text", text}}.dump() << "\n";
    out.close();
    data::DocumentReader reader({file});
    return draw_windows(reader, tokenizer, options);
  }
};

TEST_F(PerplexityCorpus, ReadsDocumentsUpToTheLimit) {
  PerplexityOptions options = small();
  const std::string enough(40, 'a');
  EXPECT_EQ(draw({enough, "short", enough, enough}, options).documents, 3);
  options.documents = 2;
  const WindowSet set = draw({enough, "short", enough, enough}, options);
  EXPECT_EQ(set.documents, 2);
  EXPECT_EQ(set.too_short, 1);
}

TEST_F(PerplexityCorpus, BosOnlyWhereTheTokenizerAddsOne) {
  tokenizer.bos = 1;
  EXPECT_EQ(draw({std::string(40, 'a')}, small()).windows[0].decoder[0], 'a');
  tokenizer.adds_bos = true;
  EXPECT_EQ(draw({std::string(40, 'a')}, small()).windows[0].decoder[0], 1);
}

TEST_F(PerplexityCorpus, SaysWhatIsMissing) {
  PerplexityOptions options = small();
  expect_error(ErrorCode::invalid_argument, "no document has the 30 tokens", [&] { draw({"short", "too"}, options); });
  options.source = ContextSource::other;
  expect_error(ErrorCode::invalid_argument, "at least two documents", [&] {
    draw({std::string(40, 'a'), "short"}, options);
  });
}

}  // namespace
}  // namespace cepe::eval
