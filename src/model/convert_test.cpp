#include "model/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <map>

#include "base/error.h"
#include "model/adapter.h"

namespace cepe::model {
namespace {

using base::Json;
using base::Path;
using testing::HasSubstr;

// A published CEPE folder of few numbers: 2 layers, C 8, H 2, G 1, D 4, V 12; encoder 1 layer of E 4.
class Convert : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(root_);
    for (const char* name : {"published", "decoder", "adapter", "joined"})
      std::filesystem::create_directories(root_ / name);
    write_published();
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  static Json config() {
    return {{"model_type", "llama"},
            {"architectures", {"LlamaForCausalContextLM"}},
            {"vocab_size", 12},
            {"hidden_size", 8},
            {"intermediate_size", 6},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 2},
            {"num_key_value_heads", 1},
            {"max_position_embeddings", 64},
            {"hidden_act", "silu"},
            {"do_cross_attention", true},
            {"num_cross_attn_layers", 1},
            {"kl_loss_cof", 2.0},
            {"kl_loss_mode", "smooth_1e-6"},
            {"encoder_config",
             {{"vocab_size", 12},
              {"hidden_size", 4},
              {"intermediate_size", 6},
              {"num_hidden_layers", 1},
              {"num_attention_heads", 1},
              {"num_key_value_heads", 1},
              {"hidden_act", "silu"},
              {"rms_norm_eps", 1e-5},
              {"train_encoder", true}}}};
  }

  void tensor(const std::string& name, const std::vector<int64_t>& shape) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    std::vector<float>& values = values_[name];
    for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>((i * 7 + next_) % 23) / 11 - 1);
    next_ += 5;
    tensors_.push_back({name, {formats::DType::float32, shape, std::as_bytes(std::span(values))}});
  }

  void block(const std::string& name, int64_t width, int64_t queries, int64_t keys) {
    tensor(name + "input_layernorm.weight", {width});
    tensor(name + "self_attn.q_proj.weight", {queries, width});
    tensor(name + "self_attn.k_proj.weight", {keys, width});
    tensor(name + "self_attn.v_proj.weight", {keys, width});
    tensor(name + "self_attn.o_proj.weight", {width, queries});
    tensor(name + "post_attention_layernorm.weight", {width});
    tensor(name + "mlp.gate_proj.weight", {6, width});
    tensor(name + "mlp.up_proj.weight", {6, width});
    tensor(name + "mlp.down_proj.weight", {width, 6});
  }

  void write_published() {
    tensor("model.embed_tokens.weight", {12, 8});
    for (const char* layer : {"0", "1"}) block("model.layers." + std::string(layer) + ".", 8, 8, 4);
    tensor("model.norm.weight", {8});
    tensor("lm_head.weight", {12, 8});
    tensor("encoder.embed_tokens.weight", {12, 4});
    block("encoder.layers.0.", 4, 4, 4);
    tensor("encoder.norm.weight", {4});
    const std::string cross = "model.layers.1.cross_attn.";
    tensor(cross + "layernorm.weight", {8});
    tensor(cross + "q_proj.weight", {8, 8});
    tensor(cross + "k_proj.weight", {4, 4});
    tensor(cross + "v_proj.weight", {4, 4});
    tensor(cross + "o_proj.weight", {8, 8});
    formats::write_safetensors(root_ / "published", "model", tensors_, {{"format", "pt"}}, int64_t{1} << 30);
    base::replace_file(root_ / "published/config.json", config().dump());
  }

  // Every tensor of the folder as it was made, and none beside `count` of them.
  void expect_unchanged(const Path& folder, size_t count) {
    const formats::Checkpoint checkpoint = formats::Checkpoint::open(folder);
    EXPECT_EQ(checkpoint.names().size(), count);
    for (const std::string& name : checkpoint.names()) {
      const formats::TensorView view = checkpoint.at(name);
      const auto expected = std::as_bytes(std::span(values_.at(name)));
      ASSERT_EQ(view.bytes.size(), expected.size()) << name;
      EXPECT_EQ(std::memcmp(view.bytes.data(), expected.data(), expected.size()), 0) << name;
    }
  }
  static Json config_in(const Path& folder) {
    return base::parse_json(base::read_file(folder / "config.json"), folder.string());
  }

  Path root_ = Path(testing::TempDir()) / ("cepe-convert-" + std::to_string(getpid()));
  std::map<std::string, std::vector<float>> values_;
  std::vector<formats::NamedTensor> tensors_;
  int64_t next_ = 0;
};

TEST_F(Convert, PublishedFolderApartAndTogetherIsTheSameBitForBit) {
  split_cepe_folder(open_model(root_ / "published"), root_ / "decoder", root_ / "adapter");
  expect_unchanged(root_ / "decoder", 21);
  expect_unchanged(root_ / "adapter", tensors_.size() - 21);
  join_cepe_folder(open_model(root_ / "decoder"), root_ / "adapter", root_ / "joined");
  expect_unchanged(root_ / "joined", tensors_.size());
  EXPECT_EQ(config_in(root_ / "joined"), config());
}

TEST_F(Convert, TheDecoderAloneIsAPlainModelAndTheAdapterFitsIt) {
  split_cepe_folder(open_model(root_ / "published"), root_ / "decoder", root_ / "adapter");
  const ModelSource source = open_model(root_ / "decoder");
  EXPECT_FALSE(source.encoder.has_value());
  EXPECT_FALSE(config_in(root_ / "decoder").contains("encoder_config"));
  const CepeModel model = load_model(source, {});
  const Adapter adapter = load_adapter(root_ / "adapter", model.decoder, {});
  EXPECT_FALSE(adapter.cross_attention[0].has_value());
  EXPECT_TRUE(adapter.cross_attention[1].has_value());
}

TEST_F(Convert, JoiningRefusesAnAdapterOfAnotherDecoder) {
  split_cepe_folder(open_model(root_ / "published"), root_ / "decoder", root_ / "adapter");
  for (formats::NamedTensor& one : tensors_) {
    if (one.name == "model.embed_tokens.weight") std::reverse(values_[one.name].begin(), values_[one.name].end());
  }
  formats::write_safetensors(root_ / "decoder", "model", std::span(tensors_).first(21), {{"format", "pt"}},
                             int64_t{1} << 30);
  EXPECT_THROW(join_cepe_folder(open_model(root_ / "decoder"), root_ / "adapter", root_ / "joined"), base::Error);
}

TEST_F(Convert, JoiningRefusesCrossAttentionThatIsNotInTheLastLayers) {
  split_cepe_folder(open_model(root_ / "published"), root_ / "decoder", root_ / "adapter");
  Json config = config_in(root_ / "adapter");
  config["cross_attention_layers"] = {0};
  base::replace_file(root_ / "adapter/config.json", config.dump());
  try {
    join_cepe_folder(open_model(root_ / "decoder"), root_ / "adapter", root_ / "joined");
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ErrorCode::unsupported);
    EXPECT_THAT(error.what(), HasSubstr("last layers"));
  }
}

TEST_F(Convert, PlainFolderIsNoCepeFolder) {
  split_cepe_folder(open_model(root_ / "published"), root_ / "decoder", root_ / "adapter");
  EXPECT_THROW(split_cepe_folder(open_model(root_ / "decoder"), root_ / "joined", root_ / "joined"), base::Error);
}

TEST_F(Convert, SafetensorsFolderIsCopiedBitForBitWithItsTokenizer) {
  base::replace_file(root_ / "published/tokenizer.json", "{}");
  convert_to_safetensors(open_model(root_ / "published"), root_ / "joined", formats::DType::float32);
  expect_unchanged(root_ / "joined", tensors_.size());
  EXPECT_EQ(base::read_file(root_ / "joined/tokenizer.json"), "{}");
  EXPECT_EQ(config_in(root_ / "joined"), config());
}

}  // namespace
}  // namespace cepe::model
