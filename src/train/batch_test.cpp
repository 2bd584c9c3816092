#include "train/batch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "training_runs.h"

namespace cepe::train {
namespace {

using Slice = model::SharedContext::Slice;

bool same(const Slice& a, const Slice& b) { return a.first == b.first && a.rows == b.rows && a.others == b.others; }

class Batches : public testing::Test {
 protected:
  data::Sampler sampler(int64_t tokens) const { return data::Sampler(corpus_, {.tokens = tokens, .seed = 3}); }

  test::TemporaryFolder folder_;
  data::TokenCorpus corpus_ = test::write_corpus(folder_ / "corpus", 1 << 16, test::numbered_documents(30, 200));
};

const PhaseSettings windows_of_two_chunks = {.context_tokens = 8, .decoder_tokens = 16, .windows = 3};

TEST_F(Batches, WindowsFollowTheContextAndEachOther) {
  const Batch batch = make_batch(sampler(56), {.phase = windows_of_two_chunks, .chunk_size = 8}, 5, 4, at::kCPU);
  ASSERT_EQ(batch.tokens.sizes(), (at::IntArrayRef{4, 56}));
  const at::Tensor windows = batch.window_tokens(), next = batch.next_tokens();
  ASSERT_EQ(windows.sizes(), (at::IntArrayRef{12, 16}));
  for (int64_t w = 0; w < 3; ++w) {
    for (int64_t b = 0; b < 4; ++b) {
      // The ids of a document count up.
      const int64_t first = batch.tokens[b][8 + 16 * w].item<int64_t>();
      const at::Tensor wanted = at::arange(first, first + 17);
      EXPECT_TRUE(windows[w * 4 + b].equal(wanted.narrow(0, 0, 16)));
      at::Tensor following = wanted.narrow(0, 1, 16).clone();
      if (w == 2) following[15].fill_(-100);
      EXPECT_TRUE(next[w * 4 + b].equal(following)) << w << " " << b;
    }
  }
  EXPECT_EQ(batch.predicted(), (next >= 0).sum().item<int64_t>());
}

TEST_F(Batches, AWindowSeesExactlyTheTextBeforeIt) {
  const Batch batch = make_batch(sampler(56), {.phase = windows_of_two_chunks, .chunk_size = 8}, 0, 2, at::kCPU);
  ASSERT_EQ(batch.slices.size(), 3U);
  for (int64_t w = 0; w < 3; ++w) {
    const Slice& slice = batch.slices[static_cast<size_t>(w)];
    EXPECT_TRUE(same(slice, {0, 8 + 16 * w, 0}));
    // The last row it sees stands right before its first token.
    EXPECT_EQ(batch.tokens[1][slice.first + slice.rows - 1].item<int64_t>() + 1,
              batch.window_tokens()[w * 2 + 1][0].item<int64_t>());
  }
  EXPECT_EQ(batch.encoded_tokens(), 8 + 32) << "the last window is no one's context";
}

TEST_F(Batches, WarmUpGivesTheWindowItselfAsContext) {
  const PhaseSettings phase = {.decoder_tokens = 32, .windows = 1};
  const Batch batch =
      make_batch(sampler(32), {.stage = Stage::warmup, .phase = phase, .chunk_size = 8}, 0, 2, at::kCPU);
  ASSERT_EQ(batch.slices.size(), 1U);
  EXPECT_TRUE(same(batch.slices[0], {0, 32, 0}));
  EXPECT_TRUE(batch.tokens.equal(batch.window_tokens()));
}

TEST_F(Batches, OfTheDecoderAloneHaveNoContext) {
  const PhaseSettings phase = {.decoder_tokens = 32, .windows = 1};
  const Batch batch = make_batch(sampler(32), {.stage = Stage::decoder, .phase = phase}, 0, 2, at::kCPU);
  EXPECT_TRUE(batch.slices.empty());
  EXPECT_EQ(batch.encoded_tokens(), 0);
}

TEST_F(Batches, OfMaskedTextHaveTheTokensThatWereThereAsLabels) {
  const PhaseSettings phase = {.decoder_tokens = 100, .windows = 1};
  const BatchRequest masked = {.stage = Stage::mlm, .phase = phase, .mask = 0.3, .mask_token = 65536},
                     plain = {.stage = Stage::decoder, .phase = phase};
  const Batch batch = make_batch(sampler(100), masked, 7, 20, at::kCPU);
  const at::Tensor text = make_batch(sampler(100), plain, 7, 20, at::kCPU).tokens;
  const at::Tensor hidden = batch.tokens == 65536;
  EXPECT_TRUE(batch.labels.masked_select(hidden).equal(text.masked_select(hidden)));
  EXPECT_TRUE(batch.tokens.masked_select(~hidden).equal(text.masked_select(~hidden)));
  EXPECT_TRUE((batch.labels.masked_select(~hidden) == -100).all().item<bool>());
  EXPECT_NEAR(hidden.to(at::kDouble).mean().item<double>(), 0.3, 0.04);
}

TEST_F(Batches, AreAPureFunctionOfSeedAndIndex) {
  BatchRequest request = {.phase = windows_of_two_chunks, .chunk_size = 8, .seed = 1};
  request.phase.windows = 1;
  request.phase.mask = 0.5;
  const auto made = [&](uint64_t first, int64_t count) {
    return make_batch(sampler(24), request, first, count, at::kCPU);
  };
  const Batch all = made(40, 6), again = made(40, 6), second_half = made(43, 3);
  EXPECT_TRUE(all.tokens.equal(again.tokens));
  EXPECT_TRUE(all.context_mask.equal(again.context_mask));
  EXPECT_TRUE(all.tokens.narrow(0, 3, 3).equal(second_half.tokens));
  EXPECT_TRUE(all.context_mask.narrow(0, 3, 3).equal(second_half.context_mask));
  EXPECT_FALSE(all.tokens.equal(made(41, 6).tokens));
}

// A long text, so that every variation is visible: 32 chunks before the window.
const PhaseSettings long_before = {.context_tokens = 256, .decoder_tokens = 64, .windows = 2};

TEST(Variations, AreAPureFunctionOfSeedAndIndex) {
  PhaseSettings phase = long_before;
  phase.short_context = phase.skipped_nearest = phase.no_context = phase.others = 0.5;
  phase.other_tokens = 16;
  int different_index = 0, different_seed = 0;
  for (uint64_t index = 0; index < 100; ++index) {
    const std::vector<Slice> one = varied(phase, 8, 1, index);
    const std::vector<Slice> again = varied(phase, 8, 1, index);
    for (size_t w = 0; w < one.size(); ++w) ASSERT_TRUE(same(one[w], again[w]));
    different_index += !same(one[1], varied(phase, 8, 1, index + 1)[1]);
    different_seed += !same(one[1], varied(phase, 8, 2, index)[1]);
  }
  EXPECT_GT(different_index, 50);
  EXPECT_GT(different_seed, 50);
}

TEST(Variations, NoneAskedIsAllBefore) {
  for (uint64_t index = 0; index < 100; ++index) {
    const std::vector<Slice> slices = varied(long_before, 8, 1, index);
    ASSERT_EQ(slices.size(), 2U);
    ASSERT_TRUE(same(slices[0], {0, 256, 0}) && same(slices[1], {0, 320, 0}));
  }
}

// Each alone, as often as asked; whatever they do, a window sees whole chunks and nothing that is not before it.
TEST(Variations, ComeAsOftenAsAskedAndNeverShowWhatFollows) {
  struct Counted {
    double PhaseSettings::*field;
    std::function<bool(const Slice&)> seen;
  };
  const Counted table[] = {
      {&PhaseSettings::no_context, [](const Slice& s) { return s.rows == 0 && s.others == 0; }},
      {&PhaseSettings::short_context, [](const Slice& s) { return s.first + s.rows == 256 && s.rows <= 32; }},
      {&PhaseSettings::skipped_nearest, [](const Slice& s) { return s.first == 0 && s.rows < 256; }},
      {&PhaseSettings::others, [](const Slice& s) { return s.rows == 256 && s.others == 16; }},
  };
  constexpr int draws = 4000;
  for (const auto& [field, seen] : table) {
    PhaseSettings phase = long_before;
    phase.*field = 0.3;
    if (field == &PhaseSettings::others) phase.other_tokens = 16;
    int count = 0;
    for (uint64_t index = 0; index < draws; ++index) {
      const std::vector<Slice> slices = varied(phase, 8, 5, index);
      for (size_t w = 0; w < slices.size(); ++w) {
        const Slice& slice = slices[w];
        const int64_t before = 256 + 64 * static_cast<int64_t>(w);
        ASSERT_TRUE(slice.first >= 0 && slice.rows >= 0 && slice.first + slice.rows <= before);
        ASSERT_EQ((slice.first % 8) + (slice.rows % 8), 0);
      }
      count += seen(slices[0]);
      ASSERT_TRUE(seen(slices[0]) || same(slices[0], {0, 256, 0}));
    }
    EXPECT_NEAR(static_cast<double>(count) / draws, 0.3, 0.03);
  }
}

TEST(Variations, ShortContextsAreTheNearestOneTwoOrFourChunksAndSkipsOneToEight) {
  PhaseSettings phase = long_before;
  phase.short_context = phase.skipped_nearest = 1;
  std::map<int64_t, int> rows, skipped;
  for (uint64_t index = 0; index < 4000; ++index) {
    const Slice slice = varied(phase, 8, 5, index)[0];
    ++rows[slice.rows / 8];
    ++skipped[(256 - slice.first - slice.rows) / 8];
  }
  ASSERT_EQ(rows.size(), 3U);
  for (const int64_t chunks : {1, 2, 4}) EXPECT_NEAR(rows[chunks], 4000 / 3.0, 150) << chunks;
  ASSERT_EQ(skipped.size(), 8U);
  for (int64_t chunks = 1; chunks <= 8; ++chunks) EXPECT_NEAR(skipped[chunks], 500, 100) << chunks;
}

TEST(Variations, OfAShortTextLeaveNothingRatherThanLess) {
  PhaseSettings phase = {.decoder_tokens = 8, .windows = 3};
  phase.skipped_nearest = phase.short_context = 1;
  for (uint64_t index = 0; index < 200; ++index) {
    for (const Slice& slice : varied(phase, 8, 5, index)) {
      ASSERT_GE(slice.rows, 0);
      ASSERT_GE(slice.first, 0);
      ASSERT_LE(slice.first + slice.rows, 16);
    }
  }
}

}  // namespace
}  // namespace cepe::train
