#include "engine/stop_strings.h"

#include <gtest/gtest.h>

namespace cepe::engine {
namespace {

TEST(StopStrings, WhateverThePiecesTheTextBeforeTheFirstStopComesOut) {
  const std::string text = "one END two ENDE three";
  for (size_t size = 1; size <= text.size(); ++size) {
    StopStrings stops({"ENDE", "", "xyz"});
    std::string out;
    for (size_t at = 0; at < text.size() && !stops.stopped; at += size) out += stops.put(text.substr(at, size));
    EXPECT_TRUE(stops.stopped) << size;
    EXPECT_EQ(out, "one END two ") << size;
  }
}

TEST(StopStrings, NothingIsHeldBackThatBeginsNoStop) {
  StopStrings stops({"abc"});
  EXPECT_EQ(stops.put("xxa"), "xx");
  EXPECT_EQ(stops.put("bb"), "abb");
  EXPECT_EQ(stops.put("ab"), "");
  EXPECT_EQ(stops.finish(), "ab");
  EXPECT_FALSE(stops.stopped);
}

}  // namespace
}  // namespace cepe::engine
