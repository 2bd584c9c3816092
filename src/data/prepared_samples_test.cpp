#include "data/prepared_samples.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <set>

#include "base/json.h"
#include "expect_error.h"
#include "sample_folder.h"
#include "temporary_folder.h"

namespace cepe::data {
namespace {

using base::ErrorCode;
using test::Columns;
using test::expect_error;
using test::pickled_floats;
using test::pickled_ids;
using test::write_sample_folder;
using Ids = std::vector<text::Token>;

Ids range(text::Token first, size_t count) {
  Ids ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

// Sample i: 10 * i + 0... before, 10 * i + 100... in the window.
Columns texts(int count, size_t before = 6, size_t window = 5) {
  Columns columns;
  for (int i = 0; i < count; ++i) {
    columns["prev_token_ids"].push_back(pickled_ids(range(10 * i, before)));
    columns["token_ids"].push_back(pickled_ids(range(10 * i + 100, window)));
  }
  return columns;
}

PreparedSettings settings_for(const base::Path& tokens) {
  PreparedSettings settings;
  settings.tokens = tokens;
  settings.context_tokens = 4, settings.decoder_tokens = 5, settings.chunk_tokens = 2, settings.top = 2;
  settings.vocabulary = settings.encoder_vocabulary = 1000;
  return settings;
}

// Two rows for windows of five: the first values are 0.5 and 0.25.
Columns teacher(int count, int64_t rows = 2) {
  Columns columns;
  for (int i = 0; i < count; ++i) {
    std::vector<uint16_t> probabilities;
    Ids indices;
    for (int64_t row = 0; row < rows; ++row) {
      const bool last = row == rows - 1;
      for (const uint16_t bits : {last ? 0x3400 : 0x3800, 0x3400, last ? 0x3800 : 0x3400})
        probabilities.push_back(bits);
      for (const int64_t id : {rows - row, int64_t{7}}) indices.push_back(static_cast<text::Token>(id));
    }
    columns["target_prob"].push_back(test::pickled({'f', 2}, {rows, 3}, probabilities));
    columns["target_index"].push_back(pickled_ids(indices, {rows, 2}));
  }
  return columns;
}

Columns joined(Columns a, const Columns& b) {
  a.insert(b.begin(), b.end());
  return a;
}

TEST(PreparedSamples, WindowIsTheBeginningAndContextTheEnd) {
  const test::TemporaryFolder folder;
  PreparedSettings settings = settings_for(write_sample_folder(folder / "m", texts(1)));
  settings.decoder_tokens = 3;
  const PreparedSample sample = PreparedSamples(settings).at(0);
  EXPECT_EQ(sample.window, range(100, 3));
  EXPECT_EQ(sample.context, range(2, 4));
  EXPECT_TRUE(sample.indices.empty() && sample.probabilities.empty());
}

TEST(PreparedSamples, FoldersOfTheLibraryRead) {
  const base::Path golden = "tests/golden/formats/mds";
  const base::Json expected = base::parse_json(base::read_file(golden / "expected.json"), "expected.json");
  for (const std::string name : {"plain", "zstd"}) {
    PreparedSettings settings = settings_for(golden / name);
    settings.vocabulary = settings.encoder_vocabulary = 1 << 20;
    const PreparedSamples samples(settings);
    ASSERT_EQ(samples.size(), static_cast<int64_t>(expected[name].size()));
    std::set<Ids> found, wanted;
    for (uint64_t i = 0; i < 4; ++i) {
      const Ids ids = expected[name][i]["token_ids"];
      wanted.insert(Ids(ids.begin(), ids.begin() + 5));
      found.insert(samples.at(i).window);
    }
    EXPECT_EQ(found, wanted);
  }
}

TEST(PreparedSamples, EachEpochVisitsAllSamplesOfAllFoldersInAnOrderOfItsOwn) {
  const test::TemporaryFolder folder;
  write_sample_folder(folder / "m/arxiv", texts(20), {.shard_bytes = 1200});
  write_sample_folder(folder / "m/books", texts(20), {.zstd = true, .shard_bytes = 1200});
  const PreparedSettings settings = settings_for(folder / "m");
  const PreparedSamples samples(settings), again(settings);
  ASSERT_EQ(samples.size(), 40);
  std::vector<Ids> epochs[2];
  for (uint64_t i = 0; i < 80; ++i) {
    epochs[i / 40].push_back(samples.at(i).window);
    EXPECT_EQ(again.at(79 - i).window, samples.at(79 - i).window);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  for (auto& epoch : epochs) {
    std::sort(epoch.begin(), epoch.end());
    for (int i = 0; i < 40; ++i) EXPECT_EQ(epoch[static_cast<size_t>(i)], range(100 + 10 * (i / 2), 5));
  }
  PreparedSettings other = settings;
  other.seed = 1;
  EXPECT_NE(PreparedSamples(other).at(0).window.front() * 1000 + PreparedSamples(other).at(1).window.front(),
            samples.at(0).window.front() * 1000 + samples.at(1).window.front());
}

TEST(PreparedSamples, TeachersRowsAreThoseOfTheLastHalf) {
  const test::TemporaryFolder folder;
  for (const int64_t rows : {2, 5}) {
    const base::Path path = write_sample_folder(folder / std::to_string(rows), joined(texts(1), teacher(1, rows)));
    PreparedSettings settings = settings_for("");
    settings.stored_logits = path;
    const PreparedSample sample = PreparedSamples(settings).at(0);
    EXPECT_EQ(sample.probabilities, (std::vector<float>{0.5, 0.25, 0.25, 0.25, 0.25, 0.5}));
    EXPECT_EQ(sample.indices, (Ids{2, 7, 1, 7}));
    EXPECT_EQ(sample.window, range(100, 5));
  }
}

TEST(PreparedSamples, ColumnsMayStandInFoldersBesideOneAnother) {
  const test::TemporaryFolder folder;
  PreparedSettings settings = settings_for(folder / "texts");
  settings.stored_logits = folder / "logits";
  write_sample_folder(folder / "texts/books", texts(3));
  Columns logits = teacher(3);
  for (int i = 0; i < 3; ++i) logits["target_index"][static_cast<size_t>(i)] = pickled_ids({i, i, i, i}, {2, 2});
  write_sample_folder(folder / "logits/books", logits);
  const PreparedSamples samples(settings);
  for (uint64_t i = 0; i < 3; ++i) EXPECT_EQ(samples.at(i).window.front(), 100 + 10 * samples.at(i).indices.front());

  std::filesystem::remove_all(folder / "logits/books");
  write_sample_folder(folder / "logits/books", teacher(2));
  expect_error(ErrorCode::invalid_argument, "'books' with 2 samples", [&] { PreparedSamples{settings}; });
  std::filesystem::rename(folder / "logits/books", folder / "logits/arxiv");
  expect_error(ErrorCode::invalid_argument, "'arxiv' with 2 samples", [&] { PreparedSamples{settings}; });
}

// Three chunks of two: 0 1, 2 3, 4 5; their neighbours: 50 51, 52 53, 54 55.
Columns retrieved(int count) {
  Columns columns;
  for (int i = 0; i < count; ++i) {
    columns["retrieved_token_ids"].push_back(pickled_ids(range(0, 6), {3, 2}));
    columns["retrieved_neighbor_token_ids"].push_back(pickled_ids(range(50, 6), {3, 2}));
  }
  return columns;
}

PreparedSettings settings_of_retrieved(const base::Path& path) {
  PreparedSettings settings = settings_for("");
  settings.retrieved = path;
  return settings;
}

TEST(PreparedSamples, OfRetrievedChunksTheFirstAreTakenAndTheBestIsLast) {
  const test::TemporaryFolder folder;
  const base::Path path = write_sample_folder(folder / "m", joined(texts(1), retrieved(1)));
  EXPECT_EQ(PreparedSamples(settings_of_retrieved(path)).at(0).context, (Ids{2, 3, 0, 1}));
}

TEST(PreparedSamples, OfRetrievedChunksWithScoresTheBestAreTaken) {
  const test::TemporaryFolder folder;
  Columns columns = joined(texts(1), retrieved(1));
  columns["retrieval_scores"] = {pickled_floats({1, 3, 2}, {3})};
  PreparedSettings settings = settings_of_retrieved(write_sample_folder(folder / "m", columns));
  EXPECT_EQ(PreparedSamples(settings).at(0).context, (Ids{4, 5, 2, 3}));
  settings.neighbours = Neighbours::separate;
  EXPECT_EQ(PreparedSamples(settings).at(0).context, (Ids{2, 3, 52, 53}));
  settings.neighbours = Neighbours::joint;
  settings.chunk_tokens = 4;
  EXPECT_EQ(PreparedSamples(settings).at(0).context, (Ids{2, 3, 52, 53}));
  columns["retrieval_scores"] = {pickled_floats({1, std::numeric_limits<float>::infinity(), 2}, {3})};
  settings.retrieved = write_sample_folder(folder / "n", columns);
  expect_error(ErrorCode::corrupt, "'retrieval_scores': a score is not finite", [&] { PreparedSamples{settings}; });
}

// The message tells shard, sample and column, and what would do.
void expect_refused(ErrorCode code, const std::string& text, const Columns& columns,
                    const std::function<void(PreparedSettings&)>& change) {
  const test::TemporaryFolder folder;
  PreparedSettings settings = settings_for(write_sample_folder(folder / "m", columns));
  change(settings);
  expect_error(code, text, [&] { PreparedSamples{settings}; });
  expect_error(code, (folder / "m/shard.00000.mds").string(), [&] { PreparedSamples{settings}; });
}

TEST(PreparedSamples, TextsThatDoNotFitAreRefused) {
  const auto refused = [](ErrorCode code, const std::string& text, const Columns& columns) {
    expect_refused(code, text, columns, [](PreparedSettings&) {});
  };
  refused(ErrorCode::unsupported, "no column 'token_ids'", {{"prev_token_ids", {pickled_ids({1, 2})}}});
  refused(ErrorCode::unsupported, "no column 'prev_token_ids'", {{"token_ids", {pickled_ids(range(0, 5))}}});
  refused(ErrorCode::invalid_argument, "sample 0, column 'token_ids' has shape [4]; a window takes 5", texts(1, 6, 4));
  refused(ErrorCode::invalid_argument,
          "column 'prev_token_ids' has shape [3]; the phase's context_tokens are 4, and at most 2 fit", texts(1, 3));
  refused(ErrorCode::corrupt, "column 'prev_token_ids'",
          {{"prev_token_ids", {pickled_ids({0, 1, -1, 2})}}, {"token_ids", {pickled_ids(range(0, 5))}}});
}

TEST(PreparedSamples, TeachersThatDoNotFitAreRefused) {
  const auto refused = [](ErrorCode code, const std::string& text, const std::string& column,
                          const std::string& value) {
    Columns columns = joined(texts(1), teacher(1));
    columns[column] = {value};
    expect_refused(code, text, columns, [](PreparedSettings& settings) { settings.stored_logits = settings.tokens; });
  };
  refused(ErrorCode::invalid_argument, "column 'target_prob' has shape [3, 3]; expected [5, 3] or [2, 3]",
          "target_prob", pickled_floats(std::vector<float>(9), {3, 3}));
  refused(ErrorCode::invalid_argument, "loss.top 2", "target_index", pickled_ids(Ids(6), {2, 3}));
  refused(ErrorCode::corrupt, "column 'target_index': value 1000 at place 2", "target_index",
          pickled_ids({1, 2, 1000, 3}, {2, 2}));
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, infinite, -0.5F, 1.5F})
    refused(ErrorCode::corrupt, "at place 4 is no probability", "target_prob",
            pickled_floats({0.5, 0.5, 0, 1, bad, 0}, {2, 3}));
  refused(ErrorCode::unsupported, "expected floating-point numbers", "target_prob", pickled_ids(Ids(6), {2, 3}));
  Columns without = joined(texts(1), teacher(1));
  without.erase("target_index");
  expect_refused(ErrorCode::unsupported, "no column 'target_index'", without,
                 [](PreparedSettings& settings) { settings.stored_logits = settings.tokens; });
}

TEST(PreparedSamples, RetrievedChunksThatDoNotFitAreRefused) {
  const auto refused = [](ErrorCode code, const std::string& text, const std::string& value) {
    Columns columns = joined(texts(1), retrieved(1));
    columns["retrieved_token_ids"] = {value};
    expect_refused(code, text, columns, [](PreparedSettings& settings) { settings.retrieved = settings.tokens; });
  };
  refused(ErrorCode::invalid_argument, "adapter.chunk_size is 2, and must be the length of a chunk",
          pickled_ids(range(0, 6), {2, 3}));
  refused(ErrorCode::invalid_argument, "ask for 2 chunks: at most 2 fit", pickled_ids({1, 2}, {1, 2}));
  refused(ErrorCode::invalid_argument, "expected a matrix [K, S]", pickled_ids(range(0, 6)));
  refused(ErrorCode::corrupt, "Padding is not read", pickled_ids({1, 2, 3, -100}, {2, 2}));
  refused(ErrorCode::unsupported, "expected a matrix [K, S]", std::string("\x80\x04]\x94(K\x01K\x02e.", 10));
}

}  // namespace
}  // namespace cepe::data
