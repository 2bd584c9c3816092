#include "base/json.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/half.h"

namespace cepe::base {
namespace {

TEST(Json, HostileTextIsRefusedWithItsPlace) {
  EXPECT_THROW(parse_json("{\"a\":1,\"a\":2}", "x.json"), Error);
  EXPECT_THROW(parse_json(std::string(100000, '['), "x.json"), Error);
  EXPECT_THROW(parse_json("{\"a\":", "x.json"), Error);
  EXPECT_THROW(parse_json("\"\xff\"", "x.json"), Error);
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
