#include "engine/calibration_text.h"

#include <gtest/gtest.h>

#include <fstream>

#include "byte_tokenizer.h"
#include "expect_error.h"
#include "temporary_folder.h"

namespace cepe::engine {
namespace {

class CalibrationText : public testing::Test {
 protected:
  base::Path write(const std::string& text) const {
    std::ofstream(folder / "text.txt", std::ios::binary) << text;
    return folder / "text.txt";
  }

  const test::TemporaryFolder folder;
  const test::ByteTokenizer tokenizer;
};

TEST_F(CalibrationText, WindowsAreSpreadOverTheWholeText) {
  const std::string text = std::string(512, 'a') + std::string(90'000, 'b') + std::string(512, 'c');
  const at::Tensor windows = calibration_windows(write(text), tokenizer);
  ASSERT_EQ(windows.sizes(), at::IntArrayRef({128, 512}));
  EXPECT_TRUE(windows[0].eq(windows[0][0]).all().item<bool>());
  EXPECT_TRUE(windows[127].eq(windows[127][0]).all().item<bool>());
  EXPECT_NE(windows[0][0].item<int64_t>(), windows[16][0].item<int64_t>());
  EXPECT_NE(windows[127][0].item<int64_t>(), windows[16][0].item<int64_t>());
}

TEST_F(CalibrationText, AShortTextHasFewerWindows) {
  EXPECT_EQ(calibration_windows(write(std::string(4'700, 'a')), tokenizer).size(0), 9);
}

TEST_F(CalibrationText, WhatIsTooShortOrNoTextIsRefused) {
  test::expect_error(base::ErrorCode::invalid_argument, "needs 4096",
                     [&] { calibration_windows(write(std::string(4'000, 'a')), tokenizer); });
  test::expect_error(base::ErrorCode::invalid_argument, "no UTF-8",
                     [&] { calibration_windows(write(std::string(9'000, '\xff')), tokenizer); });
  test::expect_error(base::ErrorCode::not_found, "nowhere",
                     [&] { calibration_windows(folder / "nowhere", tokenizer); });
}

}  // namespace
}  // namespace cepe::engine
