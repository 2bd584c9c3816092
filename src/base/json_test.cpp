#include "base/json.h"

#include <gtest/gtest.h>

#include <ctime>

#include "base/error.h"
#include "base/half.h"
#include "expect_error.h"

namespace cepe::base {
namespace {

TEST(Json, HostileTextIsRefusedWithItsPlace) {
  EXPECT_THROW(parse_json("{\"a\":1,\"a\":2}", "x.json"), Error);
  EXPECT_THROW(parse_json(std::string(100000, '['), "x.json"), Error);
  EXPECT_THROW(parse_json("{\"a\":", "x.json"), Error);
  EXPECT_THROW(parse_json("\"\xff\"", "x.json"), Error);
}

TEST(Json, WhatIsWrongIsSaidInPlainWordsWithItsLineOrByte) {
  const auto refused = [](const char* text, const char* part) {
    test::expect_error(ErrorCode::corrupt, std::string("x.json: not valid JSON: ") + part,
                       [&] { parse_json(text, "x.json"); });
  };
  refused("{\"a\":\n1,]", "parse error at line 2, column 3");
  refused("{\"a\": 1e400}", "number overflow parsing '1e400' at byte 11");
}

TEST(Json, EveryKindOfValueStandsInItsPlace) {
  const std::string text = R"([null,true,-1,18446744073709551615,1.5,"x",[],{},{"b":[{"c":[1]},2],"a":{"d":"e"}}])";
  EXPECT_EQ(parse_json(text, "x.json"), Json::parse(text));
  EXPECT_EQ(parse_ordered_json(text, "x.json").dump(), text);
  EXPECT_EQ(parse_json(" 7 ", "x.json"), 7);
  EXPECT_EQ(parse_json("\xef\xbb\xbf{}", "x.json"), Json::object());
  for (const char* bad : {"", "1 2", "[1,]", "{\"a\" 1}", "1e999", "[1}"})
    EXPECT_THROW(parse_json(bad, "x.json"), Error);
  EXPECT_NO_THROW(parse_json(std::string(65, '[') + std::string(65, ']'), "x.json"));
  EXPECT_THROW(parse_json(std::string(66, '[') + std::string(66, ']'), "x.json"), Error);
}

// As an index names its shards.
TEST(Json, ALongListOfObjectsIsReadInTimeThatGrowsWithIt) {
  std::string text = "[{}";
  for (int i = 1; i < 300000; ++i) text += ",{}";
  const std::clock_t start = std::clock();  // of the processor, whatever else runs
  EXPECT_EQ(parse_json(text + "]", "x.json").size(), 300000U);
  EXPECT_LT(std::clock() - start, 5 * CLOCKS_PER_SEC);
}

TEST(Json, FieldsAreCheckedByType) {
  const Json json = parse_json(R"({"n": 3, "huge": 18446744073709551615, "s": "x", "none": null, "f": 1.5})", "x.json");
  EXPECT_EQ(json_integer(json, "n", "x.json"), 3);
  EXPECT_EQ(json_integer(json, "none", "x.json", 7), 7);
  EXPECT_THROW(json_integer(json, "huge", "x.json"), Error);
  EXPECT_THROW(json_integer(json, "f", "x.json"), Error);
  EXPECT_THROW(json_string(json, "n", "x.json"), Error);
  EXPECT_DOUBLE_EQ(json_number(json, "f", "x.json"), 1.5);
}

TEST(Half, RoundTripsEveryBfloat16AndReadsFloat16) {
  for (uint32_t bits = 0; bits < 0x7f80; ++bits)
    EXPECT_EQ(float_to_bfloat16(bfloat16_to_float(static_cast<uint16_t>(bits))), bits);
  EXPECT_EQ(float16_to_float(0x3c00), 1.0f);
  EXPECT_EQ(float16_to_float(0xc000), -2.0f);
  EXPECT_EQ(float16_to_float(0x0001), 0x1p-24f);
  EXPECT_EQ(float16_to_float(0x7bff), 65504.0f);
}

}  // namespace
}  // namespace cepe::base
