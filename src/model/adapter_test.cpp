// Adapter folders: what is saved comes back bit for bit, and belongs to one decoder, quantised or not.
#include "model/adapter.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <map>
#include <tuple>

#include "expect_error.h"
#include "golden_tensors.h"
#include "temporary_folder.h"
#include "tiny_models.h"

namespace cepe::model {
namespace {

using base::ErrorCode;
using test::expect_error;
using test::tiny_decoder;
using test::tiny_model;
using test::TinyShape;

// Blocks of 32 values: float16 scale, then 32 int8 (q8_0), or 16 bytes of nibbles around 8 (q4_0).
Linear quantised(const Linear& dense, ops::PackedFormat format) {
  const at::Tensor values = dense.weight.contiguous();
  const float* value = values.const_data_ptr<float>();
  std::vector<std::byte> bytes;
  const float largest_code = format == ops::PackedFormat::q8_0 ? 127.0F : 7.0F;
  for (int64_t first = 0; first < values.numel(); first += 32) {
    const float* block = value + first;
    float largest = 0;
    for (int i = 0; i < 32; ++i) largest = std::max(largest, std::abs(block[i]));
    const at::Half scale = largest / largest_code;
    const auto code = [&](int i) { return static_cast<int>(std::lround(block[i] / static_cast<float>(scale))); };
    bytes.push_back(static_cast<std::byte>(scale.x & 0xff));
    bytes.push_back(static_cast<std::byte>(scale.x >> 8));
    for (int i = 0; i < (format == ops::PackedFormat::q8_0 ? 32 : 16); ++i) {
      bytes.push_back(static_cast<std::byte>(
          format == ops::PackedFormat::q8_0 ? code(i) : (code(i) + 8) | ((code(i + 16) + 8) << 4)));
    }
  }
  Linear packed;
  packed.packed = std::make_shared<ops::PackedWeight>(ops::pack_blocks(format, values.size(0), values.size(1), bytes));
  return packed;
}

Decoder quantised(Decoder decoder, ops::PackedFormat format) {
  decoder.embedding = quantised(decoder.embedding, format);
  for (DecoderLayer& layer : decoder.layers) {
    layer.attention.query_key_value = quantised(layer.attention.query_key_value, format);
    layer.attention.output = quantised(layer.attention.output, format);
    layer.feed_forward = {quantised(layer.feed_forward.gate_up, format), quantised(layer.feed_forward.down, format)};
  }
  return decoder;
}

std::map<std::string, at::Tensor> weights_of(Adapter adapter) {
  std::map<std::string, at::Tensor> found;
  visit(adapter, [&](const std::string& name, at::Tensor& weight) { found[name] = weight; });
  return found;
}

class AdapterFolder : public testing::Test {
 protected:
  base::Path folder = std::filesystem::temp_directory_path() / ("cepe-adapter-" + std::to_string(::getpid()));
  const CepeModel model = tiny_model(3);
  const LoadOptions as_stored = {WeightType::float32, at::kCPU, false};
  const at::NoGradGuard none;

  void SetUp() override { std::filesystem::remove_all(folder); }
  void TearDown() override { std::filesystem::remove_all(folder); }
  void save(SaveOptions options = {}) const {
    options.decoder_name = "tiny three";
    save_adapter(folder, *model.adapter, model.decoder, options);
  }
};

TEST_F(AdapterFolder, ComesBackBitForBit) {
  save();
  const Adapter loaded = load_adapter(folder, model.decoder, as_stored);
  EXPECT_EQ(loaded.chunk_size, model.adapter->chunk_size);
  const auto before = weights_of(*model.adapter), after = weights_of(loaded);
  ASSERT_EQ(before.size(), after.size());
  for (const auto& [name, weight] : before) EXPECT_TRUE(after.at(name).equal(weight)) << name;

  // The same numbers come out too: eps, theta and the layers are part of it.
  test::TinyWeights random(8);
  const at::Tensor chunks = random.tokens({1, 2, 8}, 96), ids = random.tokens({1, 9}, 96);
  const auto run = [&](const CepeModel& with) {
    return forward(with, ids, encode_chunks(with.adapter->encoder, chunks, {}));
  };
  EXPECT_TRUE(run({model.decoder, loaded}).equal(run(model)));
}

TEST_F(AdapterFolder, Bfloat16WeightsComeBackBitForBit) {
  Adapter half = *model.adapter;
  visit_parameters(half, [](at::Tensor& weight) { weight = weight.to(at::kBFloat16); });
  save_adapter(folder, half, model.decoder, {});
  const auto before = weights_of(half);
  const Adapter loaded = load_adapter(folder, model.decoder, {WeightType::automatic, at::kCPU, false});
  for (const auto& [name, weight] : weights_of(loaded)) {
    EXPECT_TRUE(weight.to(at::kFloat).equal(before.at(name).to(at::kFloat))) << name;
    EXPECT_EQ(weight.scalar_type(), weight.dim() == 2 ? at::kBFloat16 : at::kFloat) << name;
  }
}

TEST_F(AdapterFolder, EightBitRowsAreWithinHalfAStep) {
  save({.int8_rows = true, .trained = true, .decoder_name = ""});
  const auto before = weights_of(*model.adapter);
  for (const auto& [name, weight] : weights_of(load_adapter(folder, model.decoder, as_stored))) {
    const at::Tensor& original = before.at(name);
    if (weight.dim() == 1) {
      EXPECT_TRUE(weight.equal(original)) << name;
      continue;
    }
    const at::Tensor step = original.abs().amax(1, true) / 127.0;
    // Half a step, and what rounding the scale to float16 moves 127 of them.
    EXPECT_LE(((weight - original).abs() / step).max().item<double>(), 0.5 + 127 * 0x1p-11) << name;
  }
}

TEST_F(AdapterFolder, ASharedEmbeddingIsTheDecodersAndIsNotSaved) {
  TinyShape shape;
  shape.encoder_width = shape.width, shape.shared_embeddings = true;
  const CepeModel shared = tiny_model(4, shape);
  save_adapter(folder, *shared.adapter, shared.decoder, {});
  EXPECT_FALSE(formats::Checkpoint::open(folder).contains("encoder.embed_tokens.weight"));
  const Adapter loaded = load_adapter(folder, shared.decoder, as_stored);
  EXPECT_TRUE(loaded.encoder.embedding.weight.is_same(shared.decoder.embedding.weight));
}

TEST_F(AdapterFolder, WhatItsConfigSaysOtherwiseThanThisProgramReadsItIsRefusedByField) {
  save();
  const base::Json config = base::parse_json(test::content_of(folder / "config.json"), "config.json");
  const auto refused = [&](ErrorCode code, const char* field, const base::Json& value) {
    base::Json changed = config;
    changed[field] = value;
    base::replace_file(folder / "config.json", changed.dump());
    expect_error(code, "config.json: field '" + std::string(field) + "'", [&] { read_adapter_config(folder); });
  };
  refused(ErrorCode::unsupported, "format_version", 2);
  refused(ErrorCode::corrupt, "format_version", "new");
  refused(ErrorCode::corrupt, "decoder", "SmolLM2-135M-Instruct");
  refused(ErrorCode::corrupt, "cross_attention_layers", 3);
  refused(ErrorCode::corrupt, "chunk_size", 0);
}

TEST_F(AdapterFolder, RefusesAnotherDecoderAndNamesItsOwn) {
  save();
  expect_error(ErrorCode::mismatch, "tiny three", [&] { load_adapter(folder, tiny_decoder(4), as_stored); });
  TinyShape deeper;
  deeper.layers = 4;
  expect_error(ErrorCode::mismatch, "num_hidden_layers 3 expected, 4 given",
               [&] { load_adapter(folder, tiny_decoder(3, deeper), as_stored); });
  LoadOptions allowed = as_stored;
  allowed.allow_mismatch = true;
  EXPECT_EQ(load_adapter(folder, tiny_decoder(4), allowed).chunk_size, 8);
}

// What only one of a model's two files calls otherwise.
TEST_F(AdapterFolder, AFamilyOfTheSameBlocksIsNoOtherDecoder) {
  save();
  Decoder renamed = model.decoder;
  renamed.config.family = "mistral";
  EXPECT_NO_THROW(load_adapter(folder, renamed, as_stored));
  renamed.config.family = "gpt2";
  expect_error(ErrorCode::mismatch, "gpt2", [&] { load_adapter(folder, renamed, as_stored); });
}

TEST_F(AdapterFolder, TheEncodersRopeComesBackWhole) {
  RopeConfig yarn = {10000, 8, RopeScaling::yarn, 4, 512};
  yarn.beta_fast = 16, yarn.beta_slow = 2, yarn.attention_factor = 1.25;
  RopeConfig llama3 = {500000, 8, RopeScaling::llama3, 32, 256};
  llama3.low_frequency_factor = 2, llama3.high_frequency_factor = 6;
  RopeConfig partial = {10000, 6};
  RopeConfig stated = {10000, 8};
  stated.divisors = {1, 1.5, 8, 8};
  for (const RopeConfig& rope : {yarn, llama3, partial, stated, RopeConfig{20000, 8, RopeScaling::dynamic, 2, 128},
                                 RopeConfig{10000, 8, RopeScaling::linear, 4, 64}}) {
    EncoderConfig config = model.adapter->encoder.config;
    config.head_width = 8;
    config.rope = rope;
    const RopeConfig back = read_encoder_config(write_encoder_config(config), "config.json").rope;
    EXPECT_EQ(std::tie(back.theta, back.width, back.scaling, back.factor, back.divisors),
              std::tie(rope.theta, rope.width, rope.scaling, rope.factor, rope.divisors));
    if (rope.scaling == RopeScaling::none) continue;
    EXPECT_EQ(std::tie(back.original_positions, back.low_frequency_factor, back.high_frequency_factor, back.beta_fast,
                       back.beta_slow, back.attention_factor),
              std::tie(rope.original_positions, rope.low_frequency_factor, rope.high_frequency_factor, rope.beta_fast,
                       rope.beta_slow, rope.attention_factor));
  }
}

TEST_F(AdapterFolder, RefusesADecoderOfWhichOneTableIsAnothers) {
  save();
  Decoder changed = model.decoder;
  changed.layers.back().feed_forward.down = tiny_decoder(4).layers.back().feed_forward.down;
  expect_error(ErrorCode::mismatch, "other weights", [&] { load_adapter(folder, changed, as_stored); });
}

TEST_F(AdapterFolder, AcceptsItsDecoderQuantised) {
  save();
  for (const auto format : {ops::PackedFormat::q8_0, ops::PackedFormat::q4_0}) {
    const Decoder same = quantised(model.decoder, format);
    EXPECT_NO_THROW(load_adapter(folder, same, as_stored));
    expect_error(ErrorCode::mismatch, "other weights",
                 [&] { load_adapter(folder, quantised(tiny_decoder(4), format), as_stored); });
  }
}

TEST_F(AdapterFolder, AnAdapterOfAQuantisedDecoderFitsTheDenseOne) {
  save_adapter(folder, *model.adapter, quantised(model.decoder, ops::PackedFormat::q4_0), {});
  EXPECT_NO_THROW(load_adapter(folder, model.decoder, as_stored));
}

}  // namespace
}  // namespace cepe::model
