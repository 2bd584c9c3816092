#include "eval/windows.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

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

// What each window is given as context, in chunks of 8.
std::vector<std::vector<Token>> contexts_of(const WindowSet& set, int64_t length, const PerplexityOptions& options) {
  const WindowContexts contexts(set, options, 8);
  std::vector<std::vector<Token>> all;
  for (size_t i = 0; i < set.windows.size(); ++i) all.push_back(joined(contexts.chunks(i, length)));
  return all;
}

TEST(Windows, WindowsLieAtDifferentPlacesInsideTheirDocument) {
  const WindowSet set = windows_of({100}, small_windows());
  for (size_t i = 0; i < set.windows.size(); ++i) {
    EXPECT_EQ(set.windows[i].decoder.size(), 10U);
    EXPECT_GE(set.windows[i].context.front(), 0);
    EXPECT_LE(set.windows[i].decoder.back(), 99);
    EXPECT_TRUE(i == 0 || set.windows[i].decoder.front() > set.windows[i - 1].decoder.front());
  }
}

TEST(Windows, DocumentsThatAreTooShortAreCountedAndLeftOutAtEveryLength) {
  const WindowSet set = windows_of({29, 100, 5, 30}, small_windows());
  EXPECT_EQ(set.too_short, 2);
  EXPECT_EQ(set.documents, 2);
  EXPECT_EQ(set.windows.size(), 3U + 1U) << "30 tokens hold one place for 20 + 10";
  EXPECT_EQ(contexts_of(set, 0, small_windows()).size(), 4U);
}

TEST(Windows, TheSameSeedDrawsTheSamePlaces) {
  const auto places = [](uint64_t seed) {
    PerplexityOptions options = small_windows();
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

TEST(Windows, ABeginningTakesOnePlaceInTheWindowAndIsNoTarget) {
  const WindowSet set = windows_of({29}, small_windows(), 7);
  ASSERT_EQ(set.windows.size(), 1U) << "20 + 9 tokens of text";
  EXPECT_EQ(set.windows[0].decoder.size(), 10U);
  EXPECT_EQ(set.windows[0].decoder[0], 7);
  EXPECT_EQ(set.windows[0].decoder[1], 20);
}

TEST(Windows, ContextOfAnotherIsAsLongAndNeverTheDocumentsOwn) {
  PerplexityOptions options = small_windows();
  const WindowSet set = windows_of({100, 90, 200}, options);
  options.source = ContextSource::other;
  for (const int64_t further : {1, 2}) {
    options.other = further;
    const auto other = contexts_of(set, 20, options);
    for (size_t i = 0; i < other.size(); ++i) {
      EXPECT_EQ(other[i].size(), 20U);
      EXPECT_EQ(other[i].front() / 1000, (set.windows[i].document + further) % 3);
    }
    EXPECT_EQ(other, contexts_of(set, 20, options));
  }
  // A document with fewer windows lends them again.
  options.other = 1;
  const auto uneven = contexts_of(windows_of({30, 100}, small_windows()), 20, options);
  ASSERT_EQ(uneven.size(), 4U);
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(uneven[i], counting(0, 20));
}

TEST(Windows, ContextOfAnotherIsAnotherTextWhereOneIsGivenTwice) {
  PerplexityOptions options = small_windows();
  options.source = ContextSource::other;
  WindowSet set;
  for (const Token text : {0, 0, 1000, 0}) draw_windows("a document", counting(text, 100), options, {}, set);
  const auto lent_by = [&](int64_t other) {
    options.other = other;
    std::vector<Token> texts;
    const auto contexts = contexts_of(set, 20, options);
    for (size_t i = 0; i < contexts.size(); i += 3) texts.push_back(contexts[i].front() / 1000);
    return texts;
  };
  EXPECT_EQ(lent_by(1), (std::vector<Token>{1, 1, 0, 1}));
  EXPECT_EQ(lent_by(3), (std::vector<Token>{1, 1, 0, 1}));
}

TEST(Windows, AShuffledContextHasTheTokensOfEachChunkInAnotherOrder) {
  PerplexityOptions options = small_windows();
  options.context_tokens = {64};
  const WindowSet set = windows_of({300, 300}, options);
  options.source = ContextSource::shuffled;
  const WindowContexts contexts(set, options, 16);
  std::vector<std::vector<Token>> orders;
  for (size_t i = 0; i < set.windows.size(); ++i) {
    const auto shuffled = contexts.chunks(i, 64), own = chunks_before(set.windows[i].context, 64, 16);
    ASSERT_EQ(shuffled.size(), own.size());
    for (size_t chunk = 0; chunk < own.size(); ++chunk) {
      std::vector<Token> sorted = shuffled[chunk].ids, order;
      for (const Token id : sorted) order.push_back(id - own[chunk].ids.front());
      std::sort(sorted.begin(), sorted.end());
      EXPECT_EQ(sorted, own[chunk].ids) << "the tokens stay in their chunk";
      EXPECT_NE(shuffled[chunk].ids, own[chunk].ids);
      orders.push_back(order);
    }
  }
  std::sort(orders.begin(), orders.end());
  EXPECT_EQ(std::unique(orders.begin(), orders.end()), orders.end()) << "each window and chunk has an order of its own";
}

TEST(Windows, AShuffleRepeatsWithItsSeedAndKeepsTheChunksOfAShorterContext) {
  PerplexityOptions options = small_windows();
  options.source = ContextSource::shuffled;
  const WindowSet set = windows_of({100}, options);
  const WindowContexts contexts(set, options, 8);
  const auto longer = contexts.chunks(1, 20), shorter = contexts.chunks(1, 16);
  EXPECT_EQ(joined(longer), joined(WindowContexts(set, options, 8).chunks(1, 20)));
  EXPECT_EQ(longer[1].ids, shorter[0].ids);
  EXPECT_EQ(longer[2].ids, shorter[1].ids);
  ++options.seed;
  EXPECT_NE(joined(longer), joined(WindowContexts(set, options, 8).chunks(1, 20)));
}

TEST(Windows, TheNearestTokensAreLeftOutAndTheContextStaysAsLong) {
  PerplexityOptions options = small_windows();
  options.skipped_tokens = 7;
  const WindowSet set = windows_of({100, 36, 37}, options);
  EXPECT_EQ(set.too_short, 1) << "37 tokens are needed";
  ASSERT_EQ(set.windows.size(), 3U + 1U);
  for (const int64_t length : {6, 20}) {
    const auto contexts = contexts_of(set, length, options);
    for (size_t i = 0; i < contexts.size(); ++i) {
      const Token start = set.windows[i].decoder.front();
      EXPECT_EQ(contexts[i], counting(start - 7 - static_cast<Token>(length), static_cast<size_t>(length)));
    }
  }
}

TEST(Windows, DirectTokensAreReadInFrontOfTheWindowAndTheContextEndsBeforeThem) {
  PerplexityOptions options = small_windows();
  options.direct_tokens = 5, options.skipped_tokens = 2;
  const WindowSet set = windows_of({100}, options, 7);
  const auto contexts = contexts_of(set, 20, options);
  ASSERT_EQ(set.windows.size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    const std::vector<Token>& decoder = set.windows[i].decoder;
    ASSERT_EQ(decoder.size(), 15U);
    EXPECT_EQ(decoder[0], 7) << "the beginning stays the first that the decoder reads";
    EXPECT_EQ(std::vector(decoder.begin() + 1, decoder.end()), counting(decoder[1], 14));
    EXPECT_EQ(contexts[i], counting(decoder[1] - 2 - 20, 20));
  }
  EXPECT_EQ(windows_of({20 + 2 + 5 + 10}, options).documents, 1);
  EXPECT_EQ(windows_of({20 + 2 + 5 + 9}, options).too_short, 1);
}

TEST(Windows, WithTheSameRoomTheTargetsAreTheSameWhateverIsReadBefore) {
  const auto targets = [](const auto& change) {
    PerplexityOptions options = small_windows();
    options.room = 50;
    change(options);
    std::vector<Token> last;
    for (const Window& window : windows_of({100, 300, 58, 60}, options, 7).windows)
      last.insert(last.end(), window.decoder.end() - 4, window.decoder.end());
    return last;
  };
  const std::vector<Token> plain = targets([](auto&) {});
  EXPECT_EQ(plain.size(), (3U + 3U + 2U) * 4U);
  EXPECT_EQ(targets([](auto& options) { options.direct_tokens = 30; }), plain);
  EXPECT_EQ(targets([](auto& options) { options.skipped_tokens = 25; }), plain);
  EXPECT_EQ(targets([](auto& options) { options.direct_tokens = 10, options.skipped_tokens = 20; }), plain);
  EXPECT_EQ(targets([](auto& options) { options.context_tokens = {0}; }), plain);
  EXPECT_EQ(targets([](auto& options) { options.source = ContextSource::other; }), plain);
  EXPECT_EQ(targets([](auto& options) { options.source = ContextSource::shuffled; }), plain);
  EXPECT_NE(targets([](auto& options) { options.room = 20; }), plain);
}

TEST(Windows, ChunksNearestToTheWindowAreWhole) {
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

TEST(Windows, OptionsOutOfRangeAreNamed) {
  const auto refused = [](const std::string& text, const auto& change) {
    PerplexityOptions options = small_windows();
    change(options);
    expect_error(ErrorCode::invalid_argument, text, [&] { validate(options); });
  };
  refused("--decoder-tokens 1", [](auto& options) { options.decoder_tokens = 1; });
  refused("--target-tokens 10", [](auto& options) { options.target_tokens = 10; });
  refused("--target-tokens 0", [](auto& options) { options.target_tokens = 0; });
  refused("--context-tokens -1", [](auto& options) { options.context_tokens = {0, -1}; });
  refused("--context-tokens", [](auto& options) { options.context_tokens.clear(); });
  refused("--samples 0", [](auto& options) { options.samples = 0; });
  refused("--documents -1", [](auto& options) { options.documents = -1; });
  refused("--skip-nearest -1", [](auto& options) { options.skipped_tokens = -1; });
  refused("--direct-tokens -1", [](auto& options) { options.direct_tokens = -1; });
  refused("--other 0", [](auto& options) { options.other = 0, options.source = ContextSource::other; });
  refused("--other 2", [](auto& options) { options.other = 2; });
  refused("--room 19: must be at least 20", [](auto& options) { options.room = 19; });
  refused("--room 29: must be at least 30",
          [](auto& options) { options.room = 29, options.skipped_tokens = 7, options.direct_tokens = 3; });
  refused("--room -1", [](auto& options) { options.room = -1; });
  EXPECT_NO_THROW(validate(small_windows()));
  expect_error(ErrorCode::invalid_argument, "own, other, shuffled", [] { context_source("mine"); });
}

// A corpus on disk.
class WindowsOfACorpus : public testing::Test {
 protected:
  base::Path file = std::filesystem::temp_directory_path() / ("cepe-windows-" + std::to_string(::getpid()) + ".jsonl");
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

TEST_F(WindowsOfACorpus, ReadsDocumentsUpToTheLimit) {
  PerplexityOptions options = small_windows();
  const std::string enough(40, 'a');
  EXPECT_EQ(draw({enough, "short", enough, enough}, options).documents, 3);
  options.documents = 2;
  const WindowSet set = draw({enough, "short", enough, enough}, options);
  EXPECT_EQ(set.documents, 2);
  EXPECT_EQ(set.too_short, 1);
  ASSERT_EQ(set.ids.size(), 2U) << "ids of the documents used";
  EXPECT_TRUE(set.ids[0].ends_with(":1")) << set.ids[0];
  EXPECT_TRUE(set.ids[1].ends_with(":3")) << set.ids[1];
}

TEST_F(WindowsOfACorpus, BosOnlyWhereTheTokenizerAddsOne) {
  tokenizer.bos = 1;
  EXPECT_EQ(draw({std::string(40, 'a')}, small_windows()).windows[0].decoder[0], 'a');
  tokenizer.adds_bos = true;
  EXPECT_EQ(draw({std::string(40, 'a')}, small_windows()).windows[0].decoder[0], 1);
}

TEST_F(WindowsOfACorpus, SaysWhatIsMissing) {
  PerplexityOptions options = small_windows();
  expect_error(
      ErrorCode::invalid_argument,
      "no document has the 30 tokens needed (--decoder-tokens 10 + --context-tokens 20); the longest of 2 has 5", [&] {
        draw({"short", "too"}, options);
      });
  expect_error(ErrorCode::invalid_argument, "there are no documents", [&] { draw({}, options); });
  expect_error(ErrorCode::invalid_argument, "the texts are empty", [&] { draw({"", ""}, options); });
  const std::string enough(40, 'a');
  options.source = ContextSource::other;
  expect_error(ErrorCode::invalid_argument, "at least 2 documents", [&] { draw({enough, "short"}, options); });
  options.other = 2;
  expect_error(ErrorCode::invalid_argument, "at least 3 documents", [&] { draw({enough, enough}, options); });
  EXPECT_EQ(draw({enough, enough, std::string(40, 'b')}, options).documents, 3);
  expect_error(ErrorCode::invalid_argument, "all 3 documents long enough are the same text", [&] {
    draw({enough, enough, enough}, options);
  });
}

}  // namespace
}  // namespace cepe::eval
