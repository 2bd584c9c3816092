// How cross-attention starts: `copy`, `zero` and `normal` share q, k, v and norm and differ in o; `none` is N(0, 0.02).
#include "model/initialise.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <cmath>

#include "expect_error.h"
#include "golden_tensors.h"
#include "tiny_models.h"

namespace cepe::model {
namespace {

using test::tiny_decoder;
using test::TinyShape;

constexpr int64_t layer_number = 1, encoder_width = 24;

struct Start : testing::Test {
  const Decoder decoder = tiny_decoder(6);
  const at::Tensor fused = decoder.layers[layer_number].attention.query_key_value.weight;  // rows 32 q, 16 k, 16 v
  const at::Tensor own_output = decoder.layers[layer_number].attention.output.weight;

  CrossAttention begin(CrossAttentionStart start, uint64_t seed = 1) const {
    return initialise_cross_attention(decoder, layer_number, encoder_width, start, seed);
  }
};

TEST_F(Start, QueryKeyValueAndNormComeFromTheLayer) {
  for (const auto start : {CrossAttentionStart::copy, CrossAttentionStart::zero, CrossAttentionStart::normal}) {
    const CrossAttention block = begin(start);
    EXPECT_TRUE(block.query.weight.equal(fused.narrow(0, 0, 32)));
    EXPECT_TRUE(block.key.weight.equal(fused.narrow(0, 32, 16).narrow(1, 0, encoder_width)));
    EXPECT_TRUE(block.value.weight.equal(fused.narrow(0, 48, 16).narrow(1, 0, encoder_width)));
    EXPECT_TRUE(block.norm.weight.equal(decoder.layers[layer_number].feed_forward_norm.weight));
    EXPECT_EQ(block.norm.eps, decoder.config.norm_eps);
    EXPECT_EQ(block.norm.kind, NormKind::rms);
  }
}

// Gemma's folders state a norm's distance from one.
TEST_F(Start, ANormWithAUnitOffsetIsTakenWithIt) {
  Decoder gemma = decoder;
  Norm& norm = gemma.layers[layer_number].feed_forward_norm;
  norm = {norm.weight - 1, {}, norm.eps, NormKind::rms_unit_offset};
  const CrossAttention block =
      initialise_cross_attention(gemma, layer_number, encoder_width, CrossAttentionStart::copy, 1);
  EXPECT_TRUE(block.norm.weight.equal(norm.weight + 1));
  EXPECT_EQ(block.norm.kind, NormKind::rms);
}

TEST_F(Start, OutputIsCopiedZeroOrKaimingNormal) {
  EXPECT_TRUE(begin(CrossAttentionStart::copy).output.weight.equal(own_output));
  EXPECT_EQ(begin(CrossAttentionStart::zero).output.weight.sizes(), own_output.sizes());
  EXPECT_EQ(begin(CrossAttentionStart::zero).output.weight.abs().max().item<float>(), 0);
  const at::Tensor normal = begin(CrossAttentionStart::normal).output.weight;
  EXPECT_EQ(normal.sizes(), own_output.sizes());
  // std sqrt(2 / 32) = 0.25; of 1024 draws the estimate is within 2.2 % (one sigma).
  EXPECT_NEAR(normal.std().item<double>(), 0.25, 0.03);
  EXPECT_NEAR(normal.mean().item<double>(), 0, 0.04);
}

TEST_F(Start, NoneIsSmallRandomWithANormOfOne) {
  const CrossAttention block = begin(CrossAttentionStart::none);
  for (const at::Tensor& weight : {block.query.weight, block.key.weight, block.value.weight, block.output.weight}) {
    EXPECT_NEAR(weight.std().item<double>(), 0.02, 0.003);
    EXPECT_NEAR(weight.mean().item<double>(), 0, 0.004);
  }
  EXPECT_EQ(block.key.weight.sizes(), (std::vector<int64_t>{16, encoder_width}));
  EXPECT_TRUE((block.norm.weight == 1).all().item<bool>());
}

TEST_F(Start, ScaledAndZeroLeaveTheDecoderAsItIs) {
  const at::NoGradGuard none;
  test::TinyWeights random(2);
  const at::Tensor ids = random.tokens({1, 7}, 96), chunks = random.tokens({1, 2, 8}, 96);
  for (const auto start : {CrossAttentionStart::scaled, CrossAttentionStart::zero}) {
    CepeModel model = test::tiny_model(6);
    model.adapter->cross_attention[layer_number] = begin(start);
    model.adapter->cross_attention[2].reset();
    const at::Tensor with = forward(model, ids, encode_chunks(model.adapter->encoder, chunks, {}));
    EXPECT_EQ(test::distance(with, forward(model, ids, {ContextStates{}})), 0);
  }
}

TEST_F(Start, TheWeightsAreCopiesNotTheDecoders) {
  const at::Tensor before = fused.clone();
  begin(CrossAttentionStart::copy).query.weight.zero_();
  EXPECT_TRUE(fused.equal(before));
}

TEST_F(Start, SameSeedSameWeightsOtherLayersOthers) {
  const at::Tensor first = begin(CrossAttentionStart::none).query.weight;
  EXPECT_TRUE(begin(CrossAttentionStart::none).query.weight.equal(first));
  EXPECT_FALSE(begin(CrossAttentionStart::none, 9).query.weight.equal(first));
  EXPECT_FALSE(
      initialise_cross_attention(decoder, 2, encoder_width, CrossAttentionStart::none, 1).query.weight.equal(first));
}

// NeoX keeps [H, 3, D] rows: q, k, v of a head side by side.
TEST_F(Start, InterleavedRowsAreSplitFirst) {
  TinyShape shape;
  shape.groups = shape.heads;
  Decoder plain = tiny_decoder(7, shape), mixed = plain;
  const at::Tensor parts = plain.layers[layer_number].attention.query_key_value.weight.reshape({3, 4, 8, 32});
  mixed.layers[layer_number].attention.query_key_value.weight = parts.transpose(0, 1).reshape({96, 32}).clone();
  mixed.layers[layer_number].attention.interleaved = true;
  const auto first = initialise_cross_attention(plain, layer_number, encoder_width, CrossAttentionStart::copy, 1);
  const auto second = initialise_cross_attention(mixed, layer_number, encoder_width, CrossAttentionStart::copy, 1);
  EXPECT_TRUE(first.query.weight.equal(second.query.weight));
  EXPECT_TRUE(first.key.weight.equal(second.key.weight));
  EXPECT_TRUE(first.value.weight.equal(second.value.weight));
}

TEST_F(Start, RefusesAnEncoderWiderThanTheDecoder) {
  test::expect_error(base::ErrorCode::invalid_argument, "width 40",
                     [&] { initialise_cross_attention(decoder, layer_number, 40, CrossAttentionStart::copy, 1); });
  EXPECT_EQ(initialise_cross_attention(decoder, layer_number, 40, CrossAttentionStart::none, 1).key.weight.size(1), 40);
}

}  // namespace
}  // namespace cepe::model
