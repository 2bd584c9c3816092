#include "formats/mds.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "expect_error.h"
#include "file_bytes.h"
#include "formats/mds_writer.h"
#include "formats/numpy_pickle.h"
#include "formats/xxh64.h"
#include "temporary_folder.h"

namespace cepe::formats {
namespace {

using base::ErrorCode;
using base::Json;
using test::content_of;
using test::expect_error;
using test::FileBytes;

const base::Path golden_mds = "tests/golden/formats/mds";

template <class T>
Json values(const NumpyArray& array, size_t dimension = 0, size_t* at = nullptr) {
  size_t start = 0;
  size_t& place = at ? *at : start;
  if (dimension == array.shape.size()) return integer_at(array, static_cast<int64_t>(place++), "test");
  Json list = Json::array();
  for (int64_t i = 0; i < array.shape[dimension]; ++i) list.push_back(values<T>(array, dimension + 1, &place));
  return list;
}

Json value_of(const MdsColumn& column, std::span<const std::byte> bytes) {
  if (column.encoding == "str") return mds_text(column, bytes, "test");
  if (column.encoding == "int") return mds_integer(column, bytes, "test");
  if (column.encoding == "bytes") return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return values<int64_t>(mds_array(column, bytes, "test"));
}

Json read_folder(const base::Path& folder) {
  Json samples = Json::array();
  for (const MdsShard& shard : parse_mds_index(base::read_file(folder / "index.json"), "index.json")) {
    const MdsShardFile file(folder, shard);
    const std::string where = shard.plain.name;
    const MdsSamples in_shard(file.bytes(), shard, where);
    for (int64_t i = 0; i < in_shard.size(); ++i) {
      Json sample;
      const auto fields = in_shard.at(i);
      for (size_t c = 0; c < fields.size(); ++c) sample[shard.columns[c].name] = value_of(shard.columns[c], fields[c]);
      samples.push_back(sample);
    }
  }
  return samples;
}

TEST(Mds, WhatTheLibraryWroteReadsAsItWasGiven) {
  const Json expected = base::parse_json(base::read_file(golden_mds / "expected.json"), "expected.json");
  ASSERT_EQ(expected.size(), 3u);
  for (const auto& [name, samples] : expected.items()) EXPECT_EQ(read_folder(golden_mds / name), samples) << name;
}

TEST(Mds, ArraysPickledInEveryProtocolAndByBothNumpysRead) {
  const Json pickles = base::parse_json(base::read_file(golden_mds / "pickles.json"), "pickles.json");
  for (const auto& [name, hex] : pickles.items()) {
    const std::string digits = hex.get<std::string>();
    std::string bytes;
    for (size_t i = 0; i < digits.size(); i += 2)
      bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
    const FileBytes pickle(bytes);  // outlives the view
    const NumpyArray array = parse_numpy_pickle(pickle.span(), name);
    EXPECT_EQ(values<int64_t>(array), Json({{1, -2, 3}, {4, 5, -600000}})) << name;
    for (size_t cut = 0; cut < bytes.size(); ++cut)
      EXPECT_THROW(parse_numpy_pickle(FileBytes(bytes.substr(0, cut)).span(), name), base::Error) << cut;
  }
}

TEST(Mds, AWrittenPickleReadsBack) {
  const std::vector<uint16_t> numbers{1, 2, 65535, 4, 5, 6};
  const NumpyArray array{{'u', 2}, {3, 2}, std::as_bytes(std::span(numbers))};
  const FileBytes pickle(numpy_pickle(array));
  const NumpyArray again = parse_numpy_pickle(pickle.span(), "test");
  EXPECT_EQ(again.type, array.type);
  EXPECT_EQ(again.shape, array.shape);
  EXPECT_TRUE(std::equal(again.bytes.begin(), again.bytes.end(), array.bytes.begin(), array.bytes.end()));
}

TEST(Mds, APickleOfAnythingElseIsRefusedByName) {
  // os.system("id"), and a number
  expect_error(ErrorCode::unsupported, "os.system", [] {
    parse_numpy_pickle(FileBytes("\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.").span(), "x");
  });
  expect_error(ErrorCode::unsupported, "does not hold an array",
               [] { parse_numpy_pickle(FileBytes("\x80\x04K\x05.").span(), "x"); });
}

class MdsFolder : public testing::Test {
 protected:
  void write(const MdsWriterSettings& settings) {
    MdsWriter writer(folder_.path(), {{"n", "int", 8}, {"t", "str", {}}}, settings);
    for (int64_t i = 0; i < 50; ++i) {
      FileBytes number;
      number.value(i);
      writer.write(std::vector<std::string>{number.string(), "text " + std::to_string(i)});
    }
    writer.finish();
  }
  Json index() { return base::parse_json(content_of(folder_ / "index.json"), "index.json"); }
  // The index with one field of its first shard changed.
  void expect_refused(ErrorCode code, const std::string& text, const Json::json_pointer& field, const Json& value) {
    Json changed = index();
    changed["shards"][0][field] = value;
    expect_error(code, text, [&] { parse_mds_index(changed.dump(), "index.json"); });
  }

  test::TemporaryFolder folder_;
};

TEST_F(MdsFolder, PlainAndPackedShardsReadBack) {
  for (const bool zstd : {false, true}) {
    write({.zstd = zstd, .shard_bytes = 600});
    EXPECT_GT(index()["shards"].size(), 2u);
    const Json samples = read_folder(folder_.path());
    ASSERT_EQ(samples.size(), 50u);
    for (int i = 0; i < 50; ++i)
      EXPECT_EQ(samples[static_cast<size_t>(i)], Json({{"n", i}, {"t", "text " + std::to_string(i)}}));
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      EXPECT_TRUE(entry.path().extension() != ".mds" || entry.file_size() <= 600) << entry.path();
    }
    std::filesystem::remove_all(folder_.path());
    std::filesystem::create_directories(folder_.path());
  }
}

TEST_F(MdsFolder, AnIndexThatMakesNoSenseIsRefused) {
  write({});
  using Pointer = Json::json_pointer;
  for (const std::string name : {"../x", "a/b", "", "..", "a\\b"})
    expect_refused(ErrorCode::corrupt, "basename", Pointer("/raw_data/basename"), name);
  expect_refused(ErrorCode::corrupt, "'bytes'", Pointer("/raw_data/bytes"), -1);
  expect_refused(ErrorCode::corrupt, "'samples'", Pointer("/samples"), int64_t{1} << 40);
  expect_refused(ErrorCode::corrupt, "differ in number", Pointer("/column_sizes"), Json::array({8}));
  expect_refused(ErrorCode::corrupt, "column_sizes", Pointer("/column_sizes"), Json::array({8, -2}));
  expect_refused(ErrorCode::unsupported, "'csv'", Pointer("/format"), "csv");
  expect_refused(ErrorCode::unsupported, "version 2", Pointer("/version"), 3);
  Json packed = index();
  packed["shards"][0]["zip_data"] = packed["shards"][0]["raw_data"];
  packed["shards"][0]["compression"] = "br:11";
  expect_error(ErrorCode::unsupported, "'br:11'", [&] { parse_mds_index(packed.dump(), "index.json"); });
  expect_error(ErrorCode::unsupported, "version 1", [&] { parse_mds_index(R"({"version": 1})", "index.json"); });
}

TEST_F(MdsFolder, ADamagedShardIsNamed) {
  write({});
  const std::string good = content_of(folder_ / "shard.00000.mds");
  const auto expect_corrupt = [&](const std::string& text, const std::string& content) {
    Json fitting = index();
    fitting["shards"][0]["raw_data"]["bytes"] = content.size();
    folder_.write("index.json", fitting.dump());
    folder_.write("shard.00000.mds", content);
    expect_error(ErrorCode::corrupt, text, [&] { read_folder(folder_.path()); });
  };
  const auto patched = [&](size_t at, uint32_t value) {
    std::string content = good;
    return content.replace(at, 4, FileBytes().value(value).string());
  };
  expect_corrupt("51 samples where index.json says 50", patched(0, 51));
  expect_corrupt("sample 0: stands from byte", patched(4, 0xffffffff));
  expect_corrupt("sample 49: stands from byte", patched(4 + 50 * 4, 0xffffffff));
  expect_corrupt("offsets", good.substr(0, 100));
  expect_corrupt("sample 49", good.substr(0, good.size() - 1));
  folder_.write("shard.00000.mds", good);
  expect_error(ErrorCode::corrupt, "index.json says", [&] { read_folder(folder_.path()); });
}

TEST(Mds, AWrongHashIsNoticed) {
  const test::TemporaryFolder folder;
  for (const std::string algorithm : {"sha1", "xxh64"}) {
    std::filesystem::copy(golden_mds / "zstd", folder.path(),
                          std::filesystem::copy_options::overwrite_existing | std::filesystem::copy_options::recursive);
    Json index = base::parse_json(content_of(folder / "index.json"), "index.json");
    auto& digest = index["shards"][0]["raw_data"]["hashes"][algorithm].get_ref<std::string&>();
    digest[0] = digest[0] == '0' ? '1' : '0';
    folder.write("index.json", index.dump());
    expect_error(ErrorCode::corrupt, algorithm, [&] { read_folder(folder.path()); });
  }
}

TEST(Mds, PackedDataNeverUnpacksToMoreThanTheIndexSays) {
  const test::TemporaryFolder folder;
  std::filesystem::copy(golden_mds / "encodings", folder.path());
  Json index = base::parse_json(content_of(folder / "index.json"), "index.json");
  index["shards"][0]["raw_data"]["bytes"] = 100;
  folder.write("index.json", index.dump());
  expect_error(ErrorCode::corrupt, "more than the 100 bytes", [&] { read_folder(folder.path()); });
  const std::string packed = content_of(folder / "shard.00000.mds.zstd");
  index["shards"][0]["zip_data"]["bytes"] = packed.size() - 5;
  index["shards"][0]["raw_data"]["bytes"] = 100000;
  folder.write("index.json", index.dump());
  folder.write("shard.00000.mds.zstd", packed.substr(0, packed.size() - 5));
  expect_error(ErrorCode::corrupt, "ends too soon", [&] { read_folder(folder.path()); });
}

TEST(Xxh64, TheSpecificationsValues) {
  const auto of = [](std::string_view text) { return xxh64(std::as_bytes(std::span(text.data(), text.size()))); };
  EXPECT_EQ(of(""), 0xef46db3751d8e999ULL);
  EXPECT_EQ(of("a"), 0xd24ec4f1a98c6e5bULL);
  EXPECT_EQ(of("abc"), 0x44bc2cf5ad770999ULL);
}

}  // namespace
}  // namespace cepe::formats
