// Conversion: GGUF files of every architecture still give the reference's logits as safetensors folders; published CEPE
// folders come apart and together bit for bit.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <set>

#include "expect_error.h"
#include "fixtures.h"
#include "golden_tensors.h"
#include "model/convert.h"
#include "model/convert_gguf.h"
#include "model/save.h"

namespace cepe::model {
namespace {

using Path = std::filesystem::path;

class Folder {
 public:
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  Path made(const char* name) const {
    std::filesystem::create_directories(path / name);
    return path / name;
  }
  Path path = Path(testing::TempDir()) / ("cepe-convert-parity-" + std::to_string(getpid()));
};

class GgufConversions : public testing::TestWithParam<Path> {};

TEST_P(GgufConversions, FolderGivesTheReferencesLogits) {
  const Folder folder;
  convert_to_safetensors(open_model(GetParam()), folder.path, formats::DType::float32);
  const ModelSource source = open_model(folder.path);
  EXPECT_FALSE(source.checkpoint.is_gguf());
  const Decoder decoder = load_decoder(source, {WeightType::float32, at::kCPU, false});
  const test::Golden golden(Path(GetParam()).replace_extension(".safetensors"));
  const at::Tensor tokens = golden.at("input_ids");
  const at::Tensor found = logits(decoder, forward(decoder, uniform_layout(tokens), nullptr));
  EXPECT_LE(test::distance(found.view({tokens.size(0), tokens.size(1), -1}), golden.at("logits")),
            test::float_tolerance);
}

// What training saves of a decoder that came from a GGUF file.
TEST_P(GgufConversions, ALoadedDecoderSavedAsAFolderGivesTheReferencesLogits) {
  const Folder folder;
  const ModelSource source = open_model(GetParam());
  const Decoder loaded = load_decoder(source, {WeightType::float32, at::kCPU, false});
  const auto save = [&] { save_decoder(folder.path, loaded, hugging_face_config(source, formats::DType::float32)); };
  const std::set<std::string> refused = {"gemma3", "gpt2", "gptneox"};  // other norms, or matrices kept otherwise
  if (refused.contains(Path(GetParam()).stem().string())) {
    test::expect_error(base::ErrorCode::unsupported, "cannot be saved", save);
    return;
  }
  save();
  const Decoder decoder = load_decoder(open_model(folder.path), {WeightType::float32, at::kCPU, false});
  const test::Golden golden(Path(GetParam()).replace_extension(".safetensors"));
  const at::Tensor tokens = golden.at("input_ids");
  const at::Tensor found = logits(decoder, forward(decoder, uniform_layout(tokens), nullptr));
  EXPECT_LE(test::distance(found.view({tokens.size(0), tokens.size(1), -1}), golden.at("logits")),
            test::float_tolerance);
}

std::vector<Path> gguf_files_to_convert() {
  std::vector<Path> files;
  for (const auto& entry : std::filesystem::directory_iterator("tests/golden/gguf")) {
    if (entry.path().extension() == ".gguf") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string conversion_name(const testing::TestParamInfo<Path>& info) {
  std::string name = info.param.stem().string();
  std::replace_if(
      name.begin(), name.end(), [](unsigned char letter) { return !std::isalnum(letter); }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, GgufConversions, testing::ValuesIn(gguf_files_to_convert()), conversion_name);

void expect_same_tensors(const formats::Checkpoint& found, const formats::Checkpoint& expected) {
  ASSERT_EQ(found.names(), expected.names());
  for (const std::string& name : expected.names()) {
    const formats::TensorView a = found.at(name), b = expected.at(name);
    EXPECT_EQ(a.type, b.type) << name;
    EXPECT_EQ(a.shape, b.shape) << name;
    ASSERT_EQ(a.bytes.size(), b.bytes.size()) << name;
    EXPECT_EQ(std::memcmp(a.bytes.data(), b.bytes.data(), b.bytes.size()), 0) << name;
  }
}

TEST(PublishedFolders, ComeApartAndTogetherBitForBit) {
  const auto cases = test::cases("reference");
  CEPE_SKIP_WITHOUT(cases);
  int64_t seen = 0;
  for (const Path& published : cases) {
    SCOPED_TRACE(published.string());
    const base::Json config =
        base::parse_json(base::read_file(published / "config.json"), (published / "config.json").string());
    if (!config.contains("encoder_config") || !config.value("do_cross_attention", false)) continue;
    const Folder folder;
    const ModelSource source = open_model(published);
    split_cepe_folder(source, folder.made("decoder"), folder.made("adapter"));
    join_cepe_folder(open_model(folder.path / "decoder"), folder.path / "adapter", folder.made("joined"));
    const ModelSource joined = open_model(folder.path / "joined");
    expect_same_tensors(joined.checkpoint, source.checkpoint);
    EXPECT_EQ(joined.config, config);
    ++seen;
  }
  EXPECT_GT(seen, 0);
}

}  // namespace
}  // namespace cepe::model
