#include "context/chunk.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "expect_error.h"

namespace cepe::context {
namespace {

using base::ErrorCode;
using Ids = std::vector<text::Token>;

Ids counting(int64_t count, text::Token first) {
  Ids ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(first + static_cast<text::Token>(i));
  return ids;
}

// Documents of different ids each, so that a token in the wrong place is seen.
std::vector<Ids> some_documents() {
  const auto lengths = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 40)).as("lengths");
  std::vector<Ids> documents;
  documents.reserve(lengths.size() + 1);
  for (const int length : lengths) documents.push_back(counting(length, static_cast<int>(documents.size()) * 100));
  return documents;
}

Ids joined(const std::vector<Chunk>& chunks, int64_t document) {
  Ids ids;
  for (const Chunk& chunk : chunks)
    if (chunk.document == document) ids.insert(ids.end(), chunk.ids.begin(), chunk.ids.end());
  return ids;
}

RC_GTEST_PROP(Split, OverlappingChunksRepeatTheEndOfTheOneBeforeAndHoldEverything, ()) {
  const Ids ids = counting(*rc::gen::inRange(0, 200), 5);
  const int size = *rc::gen::inRange(1, 50), overlap = *rc::gen::inRange(0, size);
  const std::vector<Chunk> chunks = split(ids, size, 7, overlap);
  Ids all;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const Ids& part = chunks[i].ids;
    RC_ASSERT(static_cast<int>(part.size()) <= size);
    RC_ASSERT(i == 0 || static_cast<int>(part.size()) > overlap);
    if (i > 0) RC_ASSERT(std::equal(part.begin(), part.begin() + overlap, all.end() - overlap));
    all.insert(all.end(), part.begin() + (i == 0 ? 0 : overlap), part.end());
  }
  RC_ASSERT(all == ids);
  if (overlap == 0)
    RC_ASSERT(chunks.size() == (ids.size() + static_cast<size_t>(size) - 1) / static_cast<size_t>(size));
}

TEST(Split, RefusesAnOverlapThatLeavesNothingNew) {
  for (const int64_t overlap : {int64_t{-1}, int64_t{8}, int64_t{9}}) {
    test::expect_error(ErrorCode::invalid_argument, "overlap", [&] { split(counting(20, 0), 8, 0, overlap); });
  }
}

RC_GTEST_PROP(Split, LosesNothingAndOnlyTheLastChunkIsShort, ()) {
  const Ids ids = counting(*rc::gen::inRange(0, 200), 5);
  const int size = *rc::gen::inRange(1, 50);
  const std::vector<Chunk> chunks = split(ids, size, 7);
  RC_ASSERT(joined(chunks, 7) == ids);
  for (size_t i = 0; i < chunks.size(); ++i) {
    RC_ASSERT(!chunks[i].ids.empty() && static_cast<int>(chunks[i].ids.size()) <= size);
    if (i + 1 < chunks.size()) RC_ASSERT(static_cast<int>(chunks[i].ids.size()) == size);
  }
}

TEST(Split, RefusesAChunkSizeBelowOne) {
  test::expect_error(ErrorCode::invalid_argument, "chunk size is 0", [] { split(Ids{1, 2}, 0, 0); });
}

RC_GTEST_PROP(Arrange, PutsEveryTokenOfAPromptAndItsDocumentsInExactlyOnePlace, ()) {
  const std::vector<Ids> documents = some_documents();
  const Ids prompt = counting(*rc::gen::inRange(1, 120), 100000);
  const int window = *rc::gen::inRange(1, 60), size = *rc::gen::inRange(1, 30), keep = *rc::gen::inRange(0, 5);
  const Arrangement arrangement = arrange(documents, &prompt, window, size, keep);
  for (size_t i = 0; i < documents.size(); ++i)
    RC_ASSERT(joined(arrangement.chunks, static_cast<int64_t>(i)) == documents[i]);

  RC_ASSERT(static_cast<int>(arrangement.decoder.size()) <= window);
  RC_ASSERT(arrangement.decoder.back() == prompt.back());
  const Ids moved = joined(arrangement.chunks, static_cast<int64_t>(documents.size()));
  RC_ASSERT(static_cast<int64_t>(moved.size()) == arrangement.moved);
  // The moved ids go back between the first ones and the newest ones.
  const auto kept = static_cast<std::ptrdiff_t>(moved.empty() ? 0 : std::min(keep, window - 1));
  Ids whole(arrangement.decoder.begin(), arrangement.decoder.begin() + kept);
  whole.insert(whole.end(), moved.begin(), moved.end());
  whole.insert(whole.end(), arrangement.decoder.begin() + kept, arrangement.decoder.end());
  RC_ASSERT(whole == prompt);
}

RC_GTEST_PROP(Arrange, FillsTheWindowBeforeItMovesAnything, ()) {
  const Ids prompt = counting(*rc::gen::inRange(1, 120), 0);
  const int window = *rc::gen::inRange(1, 60);
  const Arrangement arrangement = arrange({}, &prompt, window, 8, 1);
  RC_ASSERT(arrangement.decoder.size() == std::min(prompt.size(), static_cast<size_t>(window)));
}

RC_GTEST_PROP(Arrange, WithoutAPromptGivesTheDecoderTheEndOfTheLastDocument, ()) {
  std::vector<Ids> documents = some_documents();
  documents.push_back(counting(*rc::gen::inRange(1, 120), 100000));
  const int window = *rc::gen::inRange(1, 60), size = *rc::gen::inRange(1, 30);
  const Arrangement arrangement = arrange(documents, nullptr, window, size, 1);
  const auto last = static_cast<int64_t>(documents.size()) - 1;
  for (int64_t i = 0; i < last; ++i) RC_ASSERT(joined(arrangement.chunks, i) == documents[static_cast<size_t>(i)]);
  Ids whole = joined(arrangement.chunks, last);
  RC_ASSERT(static_cast<int64_t>(whole.size()) == arrangement.moved);
  whole.insert(whole.end(), arrangement.decoder.begin(), arrangement.decoder.end());
  RC_ASSERT(whole == documents.back());
  RC_ASSERT(arrangement.decoder.size() == std::min(whole.size(), static_cast<size_t>(window)));
}

RC_GTEST_PROP(Arrange, CutsADocumentTheSameWayWhateverStandsBesideIt, ()) {
  const std::vector<Ids> documents = some_documents();
  const int size = *rc::gen::inRange(1, 30);
  const Ids prompt{1};
  std::vector<Ids> found, alone;
  for (const Chunk& chunk : arrange(documents, &prompt, 10, size, 0).chunks) found.push_back(chunk.ids);
  for (const Ids& document : documents)
    for (const Chunk& chunk : split(document, size, 0)) alone.push_back(chunk.ids);
  RC_ASSERT(found == alone);
}

TEST(Arrange, MovesTheOldestOfThePromptBehindTheDocumentsAndKeepsTheFirst) {
  const Ids prompt{1, 2, 3, 4, 5, 6, 7};
  const Arrangement arrangement = arrange({{10, 11}, {20}}, &prompt, 4, 2, 1);
  EXPECT_EQ(arrangement.decoder, (Ids{1, 5, 6, 7}));
  EXPECT_EQ(arrangement.moved, 3);
  ASSERT_EQ(arrangement.chunks.size(), 4u);
  EXPECT_EQ(arrangement.chunks[0].ids, (Ids{10, 11}));
  EXPECT_EQ(arrangement.chunks[1].ids, (Ids{20}));
  EXPECT_EQ(arrangement.chunks[2].ids, (Ids{2, 3}));
  EXPECT_EQ(arrangement.chunks[3].ids, (Ids{4}));
  EXPECT_EQ(arrangement.chunks[3].document, 2);
}

TEST(Arrange, PassesOverEmptyDocumentsAtTheEnd) {
  const Arrangement arrangement = arrange({{1, 2, 3}, {}}, nullptr, 2, 4, 0);
  EXPECT_EQ(arrangement.decoder, (Ids{2, 3}));
  EXPECT_EQ(arrangement.moved, 1);
}

TEST(Arrange, RefusesToReadNothing) {
  const Ids empty;
  test::expect_error(ErrorCode::invalid_argument, "nothing to read", [] { arrange({{}, {}}, nullptr, 4, 2, 0); });
  test::expect_error(ErrorCode::invalid_argument, "prompt is empty", [&] { arrange({{1}}, &empty, 4, 2, 0); });
}

TEST(Arrange, RefusesSizesOutOfRange) {
  const Ids prompt{1};
  test::expect_error(ErrorCode::invalid_argument, "window is 0", [&] { arrange({}, &prompt, 0, 2, 0); });
  test::expect_error(ErrorCode::invalid_argument, "chunk size is 0", [&] { arrange({}, &prompt, 4, 0, 0); });
  test::expect_error(ErrorCode::invalid_argument, "kept is -1", [&] { arrange({}, &prompt, 4, 2, -1); });
}

TEST(KeyOf, TellsApartIdsTheirNumberAndTheEncoder) {
  base::Digest one{}, other{};
  other[31] = std::byte{1};
  EXPECT_EQ(key_of(Ids{1, 2}, one), key_of(Ids{1, 2}, one));
  EXPECT_NE(key_of(Ids{1, 2}, one), key_of(Ids{2, 1}, one));
  EXPECT_NE(key_of(Ids{1}, one), key_of(Ids{1, 0}, one));
  EXPECT_NE(key_of(Ids{1, 2}, one), key_of(Ids{1, 2}, other));
}

}  // namespace
}  // namespace cepe::context
