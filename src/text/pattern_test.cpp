#include "text/pattern.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>

#include "base/error.h"
#include "base/interrupt.h"
#include "text/expressions.h"
#include "text/pre_tokenizer.h"

namespace cepe::text {
namespace {

std::vector<std::string> matches(const Pattern& pattern, std::string_view text) {
  Matcher matcher(pattern);
  std::vector<Range> ranges;
  matcher.find_all(text, ranges);
  std::vector<std::string> found;
  found.reserve(ranges.size());
  for (const Range& range : ranges) found.emplace_back(text.substr(range.begin, range.end - range.begin));
  return found;
}

// Runs in a process of its own: interrupts, once caught, stay.
[[noreturn]] void match_interrupted() {
  base::catch_interrupts();
  ::raise(SIGINT);
  const auto pattern = Pattern::regex("a", "test");
  if (matches(pattern, "aaa").size() != 3) ::_exit(2);
  try {
    matches(pattern, std::string(100'000, 'a'));
  } catch (const base::Interrupted&) {
    ::_exit(0);
  }
  ::_exit(1);
}

TEST(Pattern, AnInterruptEndsTheSearchOfALongText) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(match_interrupted(), testing::ExitedWithCode(0), "");
}

using Strings = std::vector<std::string>;

TEST(Pattern, CutsTextAsThePublishedExpressionsDo) {
  const auto gpt2 = Pattern::regex(gpt2_expression, "test");
  EXPECT_EQ(matches(gpt2, "It's  two 12x!?\n"), (Strings{"It", "'s", " ", " two", " 12", "x", "!?", "\n"}));
  const auto llama3 = Pattern::regex(llama3_expression, "test");
  EXPECT_EQ(matches(llama3, "THEY'RE 12345"), (Strings{"THEY", "'RE", " ", "123", "45"}));
}

TEST(Pattern, WhiteSpaceIsThatOfUnicode) {
  const auto space = Pattern::regex(R"(\s)", "test");
  EXPECT_EQ(matches(space, "a\xC2\xA0\xE3\x80\x80z").size(), 2u);
  EXPECT_TRUE(matches(space, "\xE1\xA0\x8E").empty());  // U+180E is none since Unicode 6.3
}

TEST(Pattern, ACatastrophicExpressionIsAnErrorAndNotAHang) {
  const auto pattern = Pattern::regex("(a+)+$", "tokenizer.json: pre_tokenizer");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW(matches(pattern, std::string(10000, 'a') + "b"), base::Error);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

// By many matches, within one, and without any.
TEST(Pattern, AnExpressionThatReadsTheWholeTextFromEveryPlaceIsAnErrorInATimeThatGrowsWithTheText) {
  for (const char* expression : {"a(?=[^b]*b)|a", "(?:a(?=[^b]*b)|a)+", "[ax](?=[^b]*b)"}) {
    const auto pattern = Pattern::regex(expression, "tokenizer.json: pre_tokenizer");
    const auto start = std::chrono::steady_clock::now();
    try {
      matches(pattern, std::string(300'000, 'a'));
      ADD_FAILURE() << expression;
    } catch (const base::Error& error) {
      EXPECT_NE(std::string(error.what()).find("tokenizer.json: pre_tokenizer"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(expression), std::string::npos) << error.what();
    }
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30)) << expression;
  }
}

// A search goes from a few places to the next, and on with more steps.
TEST(Pattern, AMatchIsFoundHoweverFarItIsAndHoweverManyStepsItTakes) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "\xE2\x82\xAC";
  text += "1" + std::string(5000, 'b') + "c";
  const std::string far = text + text;
  const Strings numbers = {"1", "1"};
  EXPECT_EQ(matches(Pattern::regex("[0-9]", "test"), far), numbers);
  EXPECT_EQ(matches(Pattern::regex("(?<=\\x{20ac})1", "test"), far), numbers);
  EXPECT_EQ(matches(Pattern::regex("1(?=(?:b|bb)*c)", "test"), far), numbers);
  EXPECT_EQ(matches(Pattern::regex("(?:b|x)+c$", "test"), far), Strings{std::string(5000, 'b') + "c"});
  EXPECT_EQ(matches(Pattern::regex("\\G[0-9]", "test"), far), Strings{});
  EXPECT_EQ(matches(Pattern::regex("x?", "test"), std::string(200, 'a')).size(), 201u);
}

TEST(Pattern, WhatCannotBeTranslatedIsRefused) {
  EXPECT_THROW(Pattern::regex(R"([\p{L}&&[^a]])", "test"), base::Error);
  EXPECT_THROW(Pattern::regex("(", "test"), base::Error);
  EXPECT_THROW(Pattern::regex(std::string(100, '(') + std::string(100, ')'), "test"), base::Error);
  EXPECT_THROW(replace_all(std::string(1000, 'a'), Pattern::literal("a"), std::string(1000, 'b'), 5000), base::Error);
}

TEST(PreTokenizer, DelimitersGoWhereTheBehaviorSays) {
  const std::vector<std::pair<SplitBehavior, Strings>> expected{
      {SplitBehavior::removed, {"the", "final", "countdown"}},
      {SplitBehavior::isolated, {"the", "-", "final", "-", "-", "countdown"}},
      {SplitBehavior::merged_with_previous, {"the-", "final-", "-", "countdown"}},
      {SplitBehavior::merged_with_next, {"the", "-final", "-", "-countdown"}},
      {SplitBehavior::contiguous, {"the", "-", "final", "--", "countdown"}}};
  for (const auto& [behavior, parts] : expected) {
    const PreTokenizer pre_tokenizer{{PatternSplit{Pattern::literal("-"), behavior, false}}};
    Pieces pieces{"the-final--countdown", {{0, 20, true}}};
    pre_tokenizer.apply(pieces);
    Strings found;
    for (const Piece& piece : pieces.list) found.emplace_back(pieces.view(piece));
    EXPECT_EQ(found, parts);
  }
}

}  // namespace
}  // namespace cepe::text
