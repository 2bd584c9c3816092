#include "formats/checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

#include "expect_error.h"
#include "file_bytes.h"

namespace cepe::formats {
namespace {

using base::ErrorCode;
using base::Path;

const Path golden = "tests/golden/formats";

std::vector<float> floats(const TensorView& view) {
  std::vector<float> values(static_cast<size_t>(element_count(view)));
  to_float(view, values);
  return values;
}

bool is_floating(DType type) { return type <= DType::bfloat16 || is_quantised(type); }

// Types may differ where the golden value is what blocks or bfloat16 stand for: then the floats must be the same bits.
void expect_same(const TensorView& found, const TensorView& expected) {
  EXPECT_EQ(found.shape, expected.shape);
  if (found.type == expected.type) {
    EXPECT_TRUE(std::ranges::equal(found.bytes, expected.bytes));
    return;
  }
  ASSERT_TRUE(is_floating(found.type)) << name_of(found.type);
  ASSERT_EQ(expected.type, DType::float32);
  const auto a = floats(found);
  const auto b = floats(expected);
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << name_of(found.type);
}

class Golden : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(Golden, EveryTensorIsWhatThePublishedLibrariesWroteBitForBit) {
  const auto [file, name] = GetParam();
  const Checkpoint found = Checkpoint::open(golden / file);
  const Checkpoint expected = Checkpoint::open(golden / (std::string(name) + ".expected.safetensors"));
  EXPECT_EQ(found.names(), expected.names());
  for (const auto& tensor : expected.names()) {
    SCOPED_TRACE(tensor);
    expect_same(found.at(tensor), expected.at(tensor));
  }
}
INSTANTIATE_TEST_SUITE_P(Files, Golden,
                         testing::Values(std::pair("blocks.gguf", "blocks"), std::pair("plain.gguf", "plain"),
                                         std::pair("views.bin", "views"), std::pair("module.bin", "module"),
                                         std::pair("nested.pt", "nested"), std::pair("sharded", "sharded")));

TEST(Checkpoint, GgufMetadataKeepsItsTypes) {
  const base::Json metadata = Checkpoint::open(golden / "plain.gguf").metadata();
  EXPECT_EQ(metadata.at("general.architecture"), "llama");
  EXPECT_EQ(metadata.at("general.alignment"), 64);
  EXPECT_EQ(metadata.at("test.uint32"), 4000000000u);
  EXPECT_EQ(metadata.at("test.int64"), -5);
  EXPECT_EQ(metadata.at("test.float32"), 0.5);
  EXPECT_EQ(metadata.at("test.bool"), true);
  EXPECT_EQ(metadata.at("test.string"), "grüße");
  EXPECT_EQ(metadata.at("test.strings").dump(), R"(["a","","▁b"])");
  EXPECT_EQ(metadata.at("test.numbers").dump(), "[3,-1,2]");
}

TEST(Checkpoint, PyTorchFilesThatNeedPythonAreRefusedByName) {
  test::expect_error(ErrorCode::unsupported, "legacy.bin: PyTorch's format before version 1.6",
                     [] { Checkpoint::open(golden / "refused/legacy.bin"); });
  test::expect_error(ErrorCode::unsupported, "'torch.nn.modules.linear.Linear'",
                     [] { Checkpoint::open(golden / "refused/module.bin"); });
}

TEST(Checkpoint, AMissingTensorIsRefusedWithTheNearestNames) {
  const Checkpoint checkpoint = Checkpoint::open(golden / "sharded");
  test::expect_error(ErrorCode::not_found, "no tensor 'layer.7.weight' among its 3; the nearest are 'layer.0.weight'",
                     [&] { checkpoint.at("layer.7.weight"); });
  EXPECT_FALSE(checkpoint.contains("layer.7.weight"));
  EXPECT_TRUE(checkpoint.contains("layer.2.weight"));
}

TEST(Checkpoint, IntegersAreNoFloatsAndSizesMustFit) {
  const Checkpoint checkpoint = Checkpoint::open(golden / "plain.gguf");
  std::vector<float> values(30);
  test::expect_error(ErrorCode::unsupported, "int32", [&] { to_float(checkpoint.at("I32"), values); });
  values.resize(29);
  test::expect_error(ErrorCode::invalid_argument, "29 values", [&] { to_float(checkpoint.at("F32"), values); });
}

class CheckpointFolder : public testing::Test {
 protected:
  Path folder = std::filesystem::temp_directory_path() / ("cepe-checkpoint-" + std::to_string(::getpid()));
  void SetUp() override { std::filesystem::create_directories(folder); }
  void TearDown() override { std::filesystem::remove_all(folder); }

  void put(const std::string& name, const std::string& content) { base::replace_file(folder / name, content); }
  void put_tensor(const std::string& file, const std::string& tensor) {
    const std::string header = "{\"" + tensor + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
    put(file, test::safetensors_bytes(header, 4).string());
  }
};

TEST_F(CheckpointFolder, AFolderOpensAsItsCheckpoint) {
  put_tensor("adapter.safetensors", "adapter");
  EXPECT_EQ(Checkpoint::open(folder).path(), folder / "adapter.safetensors");
  put_tensor("model.safetensors", "model");
  EXPECT_EQ(Checkpoint::open(folder).names(), std::vector<std::string>{"model"});
}

TEST_F(CheckpointFolder, ContentDecidesWhereTheExtensionDoesNot) {
  put_tensor("blob", "w");
  EXPECT_TRUE(Checkpoint::open(folder / "blob").contains("w"));
  std::filesystem::copy(golden / "plain.gguf", folder / "x.bin");
  EXPECT_TRUE(Checkpoint::open(folder / "x.bin").is_gguf());
  std::filesystem::copy(golden / "module.bin", folder / "x");
  EXPECT_TRUE(Checkpoint::open(folder / "x").contains("0.weight"));
}

TEST_F(CheckpointFolder, WhatIsNoCheckpointIsNamed) {
  put("x.txt", "hello, world");
  put("empty.safetensors", "");
  put("x.gguf", "no magic");
  test::expect_error(ErrorCode::unsupported, "x.txt", [&] { Checkpoint::open(folder / "x.txt"); });
  test::expect_error(ErrorCode::corrupt, "empty.safetensors", [&] { Checkpoint::open(folder / "empty.safetensors"); });
  test::expect_error(ErrorCode::corrupt, "x.gguf", [&] { Checkpoint::open(folder / "x.gguf"); });
  test::expect_error(ErrorCode::not_found, "no checkpoint in this folder", [&] { Checkpoint::open(folder); });
  test::expect_error(ErrorCode::not_found, "nothing", [&] { Checkpoint::open(folder / "nothing"); });
}

TEST_F(CheckpointFolder, APointerOfGitLfsIsToldFromADamagedFile) {
  for (const char* name : {"model.safetensors", "pytorch_model.bin", "x.gguf"}) {
    put(name, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n");
    test::expect_error(ErrorCode::invalid_argument, "git lfs pull", [&] { Checkpoint::open(folder / name); });
  }
}

TEST_F(CheckpointFolder, HostileIndicesAreRefused) {
  put_tensor("a.safetensors", "w");
  const struct {
    const char* promise;
    const char* index;
    ErrorCode code;
    const char* says;
  } table[] = {
      {"no JSON", "{", ErrorCode::corrupt, "not valid JSON"},
      {"no map", R"({"weight_map":[]})", ErrorCode::corrupt, "'weight_map'"},
      {"a name twice", R"({"weight_map":{"w":"a.safetensors","w":"a.safetensors"}})", ErrorCode::corrupt,
       "occurs twice"},
      {"a path upwards", R"({"weight_map":{"w":"../a.safetensors"}})", ErrorCode::corrupt, "the file of 'w'"},
      {"a path from the root", R"({"weight_map":{"w":"/etc/passwd"}})", ErrorCode::corrupt, "the file of 'w'"},
      {"the folder itself", R"({"weight_map":{"w":".."}})", ErrorCode::corrupt, "the file of 'w'"},
      {"a name with a zero byte", R"({"weight_map":{"w":"a.safetensors\u0000"}})", ErrorCode::corrupt,
       "the file of 'w'"},
      {"a number as file", R"({"weight_map":{"w":3}})", ErrorCode::corrupt, "the file of 'w'"},
      {"a file that is missing", R"({"weight_map":{"w":"b.safetensors"}})", ErrorCode::not_found, "b.safetensors"},
      {"a tensor that its file lacks", R"({"weight_map":{"v":"a.safetensors"}})", ErrorCode::corrupt,
       "places tensor 'v' in 'a.safetensors'"},
      {"an index as a shard", R"({"weight_map":{"w":"model.safetensors.index.json"}})", ErrorCode::unsupported,
       "index.json"},
  };
  for (const auto& bad : table) {
    SCOPED_TRACE(bad.promise);
    put("model.safetensors.index.json", bad.index);
    test::expect_error(bad.code, bad.says, [&] { Checkpoint::open(folder); });
  }
}

}  // namespace
}  // namespace cepe::formats
