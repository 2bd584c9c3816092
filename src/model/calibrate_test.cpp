#include "model/calibrate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>

#include "expect_error.h"
#include "model/adapter.h"
#include "model/layer_walk.h"
#include "model/load.h"
#include "quantised_models.h"
#include "saved_models.h"
#include "temporary_folder.h"
#include "tiny_models.h"

namespace cepe::model {
namespace {

class Calibrated : public testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(53);
    windows = test::random_tokens({24, 40}, at::kCPU);
    test::save_parts(folder, model);
  }

  LoadOptions options(bool calibrated) const {
    LoadOptions load = {WeightType::fp8, at::kCPU, false};
    if (calibrated) load.calibration = windows;
    return load;
  }
  Decoder decoder(const LoadOptions& load) const { return load_decoder(open_model(folder / "decoder"), load); }

  const at::NoGradGuard none;
  const CepeModel model = test::tiny_model(3);
  const test::TemporaryFolder folder;
  at::Tensor windows;
};

// Mean divergence of what `model` foretells from what `dense` does, over the second halves of the windows with the
// first ones as their contexts, or over the whole windows.
double divergence(const Decoder& decoder, const Adapter* adapter, const CepeModel& dense, const at::Tensor& windows) {
  const auto foretold = [&](const Decoder& by, const Adapter* with) {
    CrossAttentionInput cross;
    std::vector<ContextStates> contexts;
    at::Tensor tokens = windows;
    if (with) {
      const int64_t half = windows.size(1) / 2;
      contexts = encode_chunks(with->encoder, windows.narrow(1, 0, half).unsqueeze(1), {});
      tokens = windows.narrow(1, half, half);
      for (const auto& block : with->cross_attention) cross.blocks.push_back(block ? &*block : nullptr);
      for (const ContextStates& context : contexts) cross.contexts.push_back(&context);
    }
    return at::log_softmax(logits(by, forward(by, uniform_layout(tokens), nullptr, cross)), 1);
  };
  const at::Tensor right = foretold(dense.decoder, adapter ? &*dense.adapter : nullptr);
  return (right.exp() * (right - foretold(decoder, adapter))).sum(1).mean().item<double>();
}

TEST_F(Calibrated, DecodersStayNearerToTheDenseOne) {
  const double nearest = divergence(decoder(options(false)), nullptr, model, windows);
  const double calibrated = divergence(decoder(options(true)), nullptr, model, windows);
  EXPECT_LT(calibrated, 0.9 * nearest);
}

TEST_F(Calibrated, EveryProductIsPackedAndNoneIsWatchedAnyLonger) {
  Decoder loaded = decoder(options(true));
  const Adapter adapter = load_adapter(folder / "adapter", loaded, options(true));
  std::vector<const Linear*> all = {&loaded.lm_head};
  for (const DecoderLayer& layer : loaded.layers)
    all.insert(all.end(), {&layer.attention.query_key_value, &layer.attention.output, &layer.feed_forward.gate_up,
                           &layer.feed_forward.down});
  for (const auto& block : adapter.cross_attention)
    if (block) all.insert(all.end(), {&block->query, &block->output});
  for (const Linear* linear : all) {
    ASSERT_TRUE(linear->packed);
    EXPECT_EQ(linear->packed->format, ops::PackedFormat::fp8_row);
    EXPECT_FALSE(linear->moments);
    EXPECT_FALSE(linear->weight.defined());
  }
  EXPECT_EQ(weight_bytes(loaded), weight_bytes(decoder(options(false))));
}

TEST_F(Calibrated, CrossAttentionStaysNearerToTheDenseOne) {
  const auto with_blocks = [&](bool calibrated) {
    const Adapter adapter = load_adapter(folder / "adapter", model.decoder, options(calibrated));
    return divergence(model.decoder, &adapter, model, windows);
  };
  EXPECT_LT(with_blocks(true), 0.9 * with_blocks(false));
}

TEST_F(Calibrated, LayersOneByOneAreTheForwardPass) {
  const BatchLayout layout = uniform_layout(windows);
  at::Tensor hidden = embed(model.decoder, layout);
  for (size_t i = 0; i < model.decoder.layers.size(); ++i) hidden = forward_layer(model.decoder, i, layout, hidden);
  EXPECT_TRUE(at::equal(forward(model.decoder.norm, hidden), forward(model.decoder, layout, nullptr)));
}

TEST_F(Calibrated, OtherTypesAreNotCalibrated) {
  LoadOptions load = options(true);
  load.type = WeightType::int8;
  EXPECT_EQ(decoder(load).layers.front().attention.output.packed->format, ops::PackedFormat::int8_row);
}

TEST_F(Calibrated, TokensOfAnotherVocabularyAreRefused) {
  LoadOptions load = options(true);
  load.calibration = windows + 90;
  test::expect_error(base::ErrorCode::invalid_argument, "vocabulary of 96", [&] { decoder(load); });
}

}  // namespace
}  // namespace cepe::model
