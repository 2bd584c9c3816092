#include "data/masking.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "expect_error.h"

namespace cepe::data {
namespace {

using base::ErrorCode;
using test::expect_error;

TEST(MaskTokens, AShareBecomesMaskAndOnlyThatHasLabels) {
  std::vector<text::Token> ids(512);
  std::iota(ids.begin(), ids.end(), 100);
  int masked = 0;
  for (uint64_t index = 0; index < 100; ++index) {
    const MaskedTokens sample = mask_tokens(ids, 0.3, 7, 1, index);
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool hidden = sample.ids[i] == 7;
      ASSERT_EQ(sample.labels[i], hidden ? ids[i] : no_label);
      ASSERT_TRUE(hidden || sample.ids[i] == ids[i]);
      masked += hidden ? 1 : 0;
    }
  }
  EXPECT_NEAR(masked, 15360, 520);  // five standard deviations
}

TEST(MaskTokens, EverySampleIsMaskedElsewhereAndTheSameAgain) {
  const std::vector<text::Token> ids(512, 5);
  EXPECT_EQ(mask_tokens(ids, 0.3, 7, 1, 0).ids, mask_tokens(ids, 0.3, 7, 1, 0).ids);
  EXPECT_NE(mask_tokens(ids, 0.3, 7, 1, 0).ids, mask_tokens(ids, 0.3, 7, 1, 1).ids);
  EXPECT_NE(mask_tokens(ids, 0.3, 7, 1, 0).ids, mask_tokens(ids, 0.3, 7, 2, 0).ids);
}

TEST(MaskTokens, NoneAndAll) {
  const std::vector<text::Token> ids(100, 5);
  EXPECT_EQ(mask_tokens(ids, 0, 7, 1, 0).ids, ids);
  EXPECT_EQ(mask_tokens(ids, 1, 7, 1, 0).labels, ids);
  for (const double bad : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()})
    expect_error(ErrorCode::invalid_argument, "probability", [&] { mask_tokens(ids, bad, 7, 1, 0); });
}

TEST(MaskContext, AChunkIsSeenCutAtItsEndOrHiddenInThePublishedShares) {
  constexpr int64_t chunks = 16, size = 32;
  int touched = 0, whole = 0;
  std::vector<int> lengths(size + 1, 0);
  for (uint64_t index = 0; index < 1000; ++index) {
    const std::vector<uint8_t> seen = mask_context(chunks, size, 0.3, 0.1, 5, index);
    ASSERT_EQ(seen.size(), static_cast<size_t>(chunks * size));
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const auto begin = seen.begin() + chunk * size;
      const int64_t visible = std::count(begin, begin + size, 1);
      // What is seen stands in front of what is not.
      ASSERT_EQ(std::count(begin, begin + visible, 1), visible);
      touched += visible < size ? 1 : 0;
      whole += visible == 0 ? 1 : 0;
      ++lengths[static_cast<size_t>(size - visible)];
    }
  }
  EXPECT_NEAR(touched, 4800, 290);
  EXPECT_NEAR(whole, 480, 108);
  for (size_t masked = 1; masked < size; ++masked) EXPECT_NEAR(lengths[masked], 4320.0 / 31, 60) << masked;
}

TEST(MaskContext, Extremes) {
  EXPECT_EQ(mask_context(3, 4, 0, 0, 1, 1), std::vector<uint8_t>(12, 1));
  EXPECT_EQ(mask_context(3, 4, 1, 1, 1, 1), std::vector<uint8_t>(12, 0));
  EXPECT_EQ(mask_context(3, 1, 1, 0, 1, 1), std::vector<uint8_t>(3, 0));
  EXPECT_TRUE(mask_context(0, 4, 1, 0, 1, 1).empty());
  expect_error(ErrorCode::invalid_argument, "mask_seq_prob", [] { mask_context(1, 1, 0, 2, 1, 1); });
  expect_error(ErrorCode::invalid_argument, "-1 chunks", [] { mask_context(-1, 1, 0, 0, 1, 1); });
}

}  // namespace
}  // namespace cepe::data
