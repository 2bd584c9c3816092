#include "base/parse_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace cepe::base {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ParseBytes, UnitsAreOf1024) {
  EXPECT_EQ(parse_bytes("0", "--cache-size"), 0);
  EXPECT_EQ(parse_bytes("4096", "--cache-size"), 4096);
  EXPECT_EQ(parse_bytes("500M", "--cache-size"), int64_t{500} << 20);
  EXPECT_EQ(parse_bytes("8g", "--cache-size"), int64_t{8} << 30);
  EXPECT_EQ(parse_bytes("1.5 GiB", "--cache-size"), int64_t{3} << 29);
}

TEST(ParseBytes, AnythingElseIsRefusedByOptionAndText) {
  for (const char* text :
       {"", "G", "-1", "8X", "8GG", "nan", "inf", "1e3", "99999999T", "8 G G", "0,5G", "0x", "0 no"}) {
    try {
      parse_bytes(text, "--cache-size");
      FAIL() << text;
    } catch (const Error& error) {
      EXPECT_TRUE(error.is_users());
      EXPECT_THAT(error.what(), HasSubstr("--cache-size '" + std::string(text) + "'"));
    }
  }
}

TEST(ParseLayers, RangesAndListsAreSortedAndUnique) {
  EXPECT_THAT(parse_layers("8-11", "--layers"), ElementsAre(8, 9, 10, 11));
  EXPECT_THAT(parse_layers("4-5,0,5", "--layers"), ElementsAre(0, 4, 5));
}

TEST(ParseLayers, WhatIsNoRangeIsRefused) {
  for (const char* text : {"", "a", "5-3", "1,", "-1", "1-", "99999", "0-99999999999999999999"})
    EXPECT_THROW(parse_layers(text, "--layers"), Error) << text;
}

TEST(ParseCounts, KIs1024Tokens) {
  EXPECT_THAT(parse_counts("0,8K,127K,1M", "--contexts"), ElementsAre(0, 8192, 130048, 1048576));
  EXPECT_THROW(parse_counts("8K,", "--contexts"), Error);
  EXPECT_THROW(parse_counts("0.3", "--contexts"), Error);
}

}  // namespace
}  // namespace cepe::base
