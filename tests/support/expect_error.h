// Expects a base::Error with a code and a message that holds a text: what failed and where is part of the promise.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace cepe::test {

template <class Action>
void expect_error(base::ErrorCode code, const std::string& text, Action action) {
  try {
    action();
    ADD_FAILURE() << "no error; expected one that says: " << text;
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what() << "\n  expected: " << text;
  }
}

}  // namespace cepe::test
