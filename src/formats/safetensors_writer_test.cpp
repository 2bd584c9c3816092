#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <set>

#include "base/interrupt.h"
#include "expect_error.h"
#include "formats/byte_reader.h"
#include "formats/checkpoint.h"
#include "formats/dtype.h"
#include "formats/safetensors.h"

namespace cepe::formats {
namespace {

using base::ErrorCode;

class SafetensorsWriter : public testing::Test {
 protected:
  base::Path folder = std::filesystem::temp_directory_path() / ("cepe-safetensors-" + std::to_string(::getpid()));
  void SetUp() override { std::filesystem::create_directories(folder); }
  void TearDown() override { std::filesystem::remove_all(folder); }

  std::set<std::string> files() const {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) found.insert(entry.path().filename());
    return found;
  }
};

// Tensors and the bytes they view.
struct Owned {
  std::vector<std::string> contents;
  std::vector<NamedTensor> tensors;

  void add(const std::string& name, DType type, std::vector<int64_t> shape, std::string content) {
    contents.push_back(std::move(content));
    tensors.push_back({name, {type, std::move(shape), {}}});
  }
  std::span<const NamedTensor> finish() {
    for (size_t i = 0; i < tensors.size(); ++i) {
      tensors[i].view.bytes = std::as_bytes(std::span(contents[i].data(), contents[i].size()));
    }
    return tensors;
  }
};

Owned three_floats() {
  Owned owned;
  for (const char* name : {"c", "a", "b"}) owned.add(name, DType::float32, {1}, std::string(4, name[0]));
  return owned;
}

bool same(const TensorView& a, const TensorView& b) {
  return a.type == b.type && a.shape == b.shape && std::ranges::equal(a.bytes, b.bytes);
}

// ASCII with control characters, quotes and backslashes, and sometimes more of Unicode; the empty name too.
rc::Gen<std::vector<std::string>> any_names() {
  const auto ascii = rc::gen::container<std::string>(rc::gen::inRange<char>(1, 127));
  const auto ending = rc::gen::element<std::string>("", "", "ü", "語", "\xf0\x9f\xa6\x89");
  const auto name =
      rc::gen::map(rc::gen::pair(ascii, ending), [](const auto& parts) { return parts.first + parts.second; });
  return rc::gen::resize(12, rc::gen::unique<std::vector<std::string>>(name));
}

Owned any_tensors() {
  Owned owned;
  for (const std::string& name : *any_names()) {
    const auto type = static_cast<DType>(*rc::gen::inRange(0, 10));
    const auto shape = *rc::gen::resize(3, rc::gen::container<std::vector<int64_t>>(rc::gen::inRange<int64_t>(0, 5)));
    const auto bytes = static_cast<size_t>(*checked_bytes(type, shape));
    owned.add(name, type, shape, *rc::gen::container<std::string>(bytes, rc::gen::arbitrary<char>()));
  }
  return owned;
}

RC_GTEST_FIXTURE_PROP(SafetensorsWriter, WhatIsWrittenIsReadBackBitForBitWholeOrInShards, ()) {
  Owned owned = any_tensors();
  const auto tensors = owned.finish();
  const base::Json metadata{{"note", "grüße"}};
  write_safetensors(folder, "model", tensors, metadata, *rc::gen::inRange<int64_t>(1, 600));
  const Checkpoint read = Checkpoint::open(folder);
  RC_ASSERT(read.names().size() == tensors.size());
  RC_ASSERT(read.metadata() == metadata);
  for (const NamedTensor& tensor : tensors) {
    RC_ASSERT(same(read.at(tensor.name), tensor.view));
    // The published reader takes unaligned data, others map it: each tensor starts at a multiple of its element.
    RC_ASSERT(reinterpret_cast<uintptr_t>(read.at(tensor.name).bytes.data()) %
                  static_cast<uintptr_t>(block_bytes(tensor.view.type)) ==
              0u);
  }
}

TEST_F(SafetensorsWriter, TheHeaderKeepsTheGivenOrderAndIsAligned) {
  Owned owned = three_floats();
  write_safetensors(folder, "x", owned.finish(), {{"k", "v"}}, 1000);
  const std::string file = base::read_file(folder / "x.safetensors");
  EXPECT_EQ(file.size() % 8, 4u) << "three floats after a header of a multiple of 8";
  EXPECT_EQ(file.substr(8, 26), R"({"__metadata__":{"k":"v"},)");
  EXPECT_LT(file.find("\"c\""), file.find("\"a\""));
  EXPECT_LT(file.find("\"a\""), file.find("\"b\""));
}

TEST_F(SafetensorsWriter, ShardsHoldAtMostTheirLimitAndTheIndexSaysWhere) {
  Owned owned = three_floats();
  owned.add("wide", DType::int64, {2}, std::string(16, 'w'));
  write_safetensors(folder, "model", owned.finish(), nullptr, 8);
  EXPECT_EQ(files(), (std::set<std::string>{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                            "model-00003-of-00003.safetensors", "model.safetensors.index.json"}));
  const base::Json index = base::parse_json(base::read_file(folder / "model.safetensors.index.json"), "index");
  EXPECT_EQ(index.at("metadata").at("total_size"), 28);
  EXPECT_EQ(index.at("weight_map").at("a"), "model-00001-of-00003.safetensors");
  EXPECT_EQ(index.at("weight_map").at("b"), "model-00002-of-00003.safetensors");
  EXPECT_EQ(index.at("weight_map").at("wide"), "model-00003-of-00003.safetensors");
}

TEST_F(SafetensorsWriter, WritingAgainLeavesNothingOfTheEarlierSaveButOtherFilesStay) {
  base::replace_file(folder / "model-notes.safetensors", "mine");
  Owned owned = three_floats();
  const auto tensors = owned.finish();
  write_safetensors(folder, "model", tensors, nullptr, 4);
  write_safetensors(folder, "model", tensors, nullptr, 8);
  EXPECT_EQ(files(), (std::set<std::string>{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                                            "model.safetensors.index.json", "model-notes.safetensors"}));
  write_safetensors(folder, "model", tensors, nullptr, 1000);
  EXPECT_EQ(files(), (std::set<std::string>{"model.safetensors", "model-notes.safetensors"}));
  write_safetensors(folder, "model", tensors, nullptr, 8);
  EXPECT_FALSE(files().contains("model.safetensors")) << "it would be found before the index";
}

TEST_F(SafetensorsWriter, AFileMayBeRewrittenFromItsOwnMapping) {
  Owned owned = three_floats();
  write_safetensors(folder, "model", owned.finish(), nullptr, 1000);
  const Checkpoint read = Checkpoint::open(folder);
  const std::vector<NamedTensor> again{{"renamed", read.at("b")}};
  write_safetensors(folder, "model", again, nullptr, 1000);
  EXPECT_EQ(static_cast<char>(Checkpoint::open(folder).at("renamed").bytes[0]), 'b');
}

// Runs in a process of its own: interrupts, once caught, stay.
[[noreturn]] void write_interrupted(const base::Path& folder) {
  base::catch_interrupts();
  ::raise(SIGINT);
  Owned owned = three_floats();
  try {
    write_safetensors(folder, "model", owned.finish(), nullptr, 8);
  } catch (const base::Interrupted&) {
    ::_exit(std::filesystem::is_empty(folder) ? 0 : 2);
  }
  ::_exit(1);
}

TEST_F(SafetensorsWriter, AnInterruptEndsWritingAndLeavesNothing) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(write_interrupted(folder), testing::ExitedWithCode(0), "");
}

TEST_F(SafetensorsWriter, APlanWithoutBytesGivesTheSameFile) {
  Owned owned = three_floats();
  owned.add("wide", DType::int64, {2}, std::string(16, 'w'));
  const auto tensors = owned.finish();
  write_safetensors(folder, "x", tensors, {{"k", "v"}}, 1000);

  std::vector<NamedTensor> without(tensors.begin(), tensors.end());
  for (NamedTensor& tensor : without) tensor.view.bytes = {};
  const SafetensorsPlan plan = plan_safetensors(without, {{"k", "v"}});
  std::string file = plan.head;
  for (const size_t i : plan.order) file += owned.contents.at(i);
  EXPECT_EQ(file, base::read_file(folder / "x.safetensors"));
}

TEST_F(SafetensorsWriter, APlanRefusesMoreBytesThanAFileCanHave) {
  const int64_t half = int64_t{1} << 62;
  const std::vector<NamedTensor> tensors{{"a", {DType::uint8, {half}, {}}},
                                         {"b", {DType::uint8, {half}, {}}},
                                         {"c", {DType::uint8, {half}, {}}},
                                         {"d", {DType::uint8, {half}, {}}}};
  test::expect_error(ErrorCode::invalid_argument, "more bytes than a file can have",
                     [&] { plan_safetensors(tensors, nullptr); });
  const std::vector<NamedTensor> one{{"a", {DType::float32, {half}, {}}}};
  test::expect_error(ErrorCode::invalid_argument, "no tensor can have the shape",
                     [&] { plan_safetensors(one, nullptr); });
}

TEST_F(SafetensorsWriter, WhatCannotBeWrittenIsRefusedAndNothingChanges) {
  const std::string block(20, '\0');
  const auto bytes = std::as_bytes(std::span(block.data(), block.size()));
  const NamedTensor good{"w", {DType::uint8, {20}, bytes}};
  const struct {
    const char* promise;
    std::vector<NamedTensor> tensors;
    base::Json metadata;
    ErrorCode code;
    const char* says;
  } table[] = {
      {"a block type",
       {{"w", {DType::q4_1, {32}, bytes}}},
       nullptr,
       ErrorCode::unsupported,
       "'w' has the block type q4_1"},
      {"a name twice", {good, good}, nullptr, ErrorCode::invalid_argument, "'w' occurs twice"},
      {"the reserved name", {{"__metadata__", good.view}}, nullptr, ErrorCode::invalid_argument, "reserved"},
      {"a name that is not UTF-8", {{"\xff", good.view}}, nullptr, ErrorCode::invalid_argument, "not UTF-8"},
      {"bytes that do not fit",
       {{"w", {DType::float32, {4}, bytes}}},
       nullptr,
       ErrorCode::invalid_argument,
       "20 bytes do not fit float32 [4]"},
      {"metadata of numbers", {good}, {{"k", 3}}, ErrorCode::invalid_argument, "'k'"},
      {"metadata that is a list", {good}, base::Json::array(), ErrorCode::invalid_argument, "object of strings"},
  };
  for (const auto& bad : table) {
    SCOPED_TRACE(bad.promise);
    test::expect_error(bad.code, bad.says, [&] { write_safetensors(folder, "m", bad.tensors, bad.metadata, 100); });
  }
  const auto limit = [&] { write_safetensors(folder, "m", std::span(&good, 1), nullptr, 0); };
  test::expect_error(ErrorCode::invalid_argument, "max_shard_bytes", limit);
  EXPECT_TRUE(files().empty());
}

TEST_F(SafetensorsWriter, AFolderThatIsNotThereIsNamed) {
  Owned owned = three_floats();
  test::expect_error(ErrorCode::not_found, "nowhere",
                     [&] { write_safetensors(folder / "nowhere", "m", owned.finish(), nullptr, 100); });
}

}  // namespace
}  // namespace cepe::formats
