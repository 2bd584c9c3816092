#include "text/utf8.h"

#include <gtest/gtest.h>

namespace cepe::text {
namespace {

const std::string bad = "\xEF\xBF\xBD";

TEST(Utf8, IllFormedBytesBecomeWhatPythonMakesOfThem) {
  EXPECT_EQ(replace_invalid("a\xFFz"), "a" + bad + "z");
  EXPECT_EQ(replace_invalid("\xC0\xAF"), bad + bad);  // overlong
  EXPECT_EQ(replace_invalid("\xE2\x82"), bad);        // cut short: one for the maximal part
  EXPECT_EQ(replace_invalid("\xF0\x9F\x98 x"), bad + " x");
  EXPECT_EQ(replace_invalid("\xED\xA0\x80"), bad + bad + bad);            // a surrogate
  EXPECT_EQ(replace_invalid("\xF4\x90\x80\x80"), bad + bad + bad + bad);  // beyond U+10FFFF
  EXPECT_EQ(replace_invalid("12345678\xE2\x82\xAC"), "12345678\xE2\x82\xAC");
}

TEST(Utf8, TheMaskFollowsReplacedBytes) {
  std::string mask("\0\1\0", 3);
  EXPECT_EQ(replace_invalid("a\xFF"
                            "b",
                            mask),
            "a" + bad + "b");
  EXPECT_EQ(mask, std::string("\0\1\1\1\0", 5));
}

TEST(Utf8, AnUnfinishedCharacterAtTheEndWaits) {
  EXPECT_EQ(complete_prefix("ab\xF0\x9F\x98"), 2u);
  EXPECT_EQ(complete_prefix("ab\xE2\x82\xAC"), 5u);
  EXPECT_EQ(complete_prefix("ab\x82"), 3u);      // can never become one
  EXPECT_EQ(complete_prefix("ab\xE2\x28"), 4u);  // is none already
  EXPECT_EQ(complete_prefix(""), 0u);
}

}  // namespace
}  // namespace cepe::text
