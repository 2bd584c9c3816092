#include "text/unicode.h"

#include <gtest/gtest.h>

#include <chrono>

namespace cepe::text {
namespace {

constexpr const char* acute = "\xCC\x81";      // U+0301, above: class 230
constexpr const char* dot_below = "\xCC\xA3";  // U+0323, below: class 220

std::string repeated(const std::string& part, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += part;
  return text;
}

TEST(Unicode, FormsComposeAndDecompose) {
  EXPECT_EQ(to_form(std::string("a") + acute + dot_below, UnicodeForm::nfd), std::string("a") + dot_below + acute);
  EXPECT_EQ(to_form(std::string("a") + acute + dot_below, UnicodeForm::nfc), "\xE1\xBA\xA1" + std::string(acute));
  EXPECT_EQ(to_form("\xEA\xB0\x80", UnicodeForm::nfd), "\xE1\x84\x80\xE1\x85\xA1");  // a syllable of Hangul
  EXPECT_EQ(to_form("\xE1\x84\x80\xE1\x85\xA1", UnicodeForm::nfc), "\xEA\xB0\x80");
  EXPECT_EQ(to_form("\xEF\xAC\x81", UnicodeForm::nfc), "\xEF\xAC\x81");  // the ligature fi
  EXPECT_EQ(to_form("\xEF\xAC\x81", UnicodeForm::nfkc), "fi");
  EXPECT_EQ(to_form("\xEF\xB7\xBA", UnicodeForm::nfkd).size(), 33u);  // the longest decomposition
}

TEST(Unicode, ALongRunOfMarksIsOrderedInTime) {
  const size_t count = 200'000;
  const auto start = std::chrono::steady_clock::now();
  const std::string ordered = to_form("x" + repeated(std::string(acute) + dot_below, count), UnicodeForm::nfd);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 10);
  EXPECT_EQ(ordered, "x" + repeated(dot_below, count) + repeated(acute, count));
}

}  // namespace
}  // namespace cepe::text
