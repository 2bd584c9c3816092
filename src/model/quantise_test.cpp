#include "model/quantise.h"

#include <ATen/Context.h>
#include <unistd.h>

#include "model/adapter.h"
#include "model/load.h"
#include "quantised_models.h"
#include "saved_models.h"
#include "temporary_folder.h"
#include "tiny_models.h"

namespace cepe::model {
namespace {

class Quantised : public testing::Test {
 protected:
  void SetUp() override { at::manual_seed(51); }
  const at::NoGradGuard none;
};

TEST_F(Quantised, ModelsStayNearDenseOnes) { test::expect_quantised_models_near_dense_ones(at::kCPU); }
TEST_F(Quantised, RecordedStepsGiveWhatPlainOnesGive) {
  test::expect_recorded_steps_of_quantised_models_as_plain_ones(at::kCPU);
}

TEST_F(Quantised, ProductsArePackedAndTheRestStaysDense) {
  const CepeModel model = test::random_model(at::kCPU, ops::PackedFormat::int8_row);
  for (const DecoderLayer& layer : model.decoder.layers) {
    for (const Linear* linear : {&layer.attention.query_key_value, &layer.attention.output, &layer.feed_forward.gate_up,
                                 &layer.feed_forward.down})
      EXPECT_TRUE(linear->packed && !linear->weight.defined());
  }
  EXPECT_TRUE(model.decoder.lm_head.packed);
  EXPECT_TRUE(model.decoder.embedding.weight.defined());
  for (const auto& block : model.adapter->cross_attention) {
    EXPECT_TRUE(block->query.packed && block->output.packed);
    EXPECT_TRUE(block->key.weight.defined() && block->value.weight.defined());
  }
  EXPECT_TRUE(model.adapter->encoder.layers.front().output.weight.defined());
}

TEST_F(Quantised, AWidthThatAFormatCannotTakeStaysDense) {
  Linear linear = {at::randint(9, {4, 40}).to(at::kFloat), {}, nullptr};
  quantise(linear, ops::PackedFormat::q4_1);
  EXPECT_TRUE(linear.weight.defined() && !linear.packed);
}

class QuantisedFolder : public Quantised {
 protected:
  void SetUp() override {
    Quantised::SetUp();
    test::save_parts(folder, model);
  }

  const CepeModel model = test::tiny_model(3);
  const test::TemporaryFolder folder;
};

TEST_F(QuantisedFolder, LoadingQuantisesWhatThePlanSays) {
  const ModelSource source = open_model(folder / "decoder");
  for (const auto& [type, tolerance] : test::quantised_types) {
    const Decoder decoder = load_decoder(source, {type, at::kCPU, false});
    int64_t foretold = 0;
    for (const std::string& name : source.checkpoint.names())
      foretold += loaded_bytes(name, source.checkpoint.at(name), type, true);
    EXPECT_EQ(weight_bytes(decoder), foretold);
    EXPECT_LT(foretold, weight_bytes(model.decoder));
    const at::Tensor ids = test::random_tokens({20}, at::kCPU);
    const auto logits_by = [&](const Decoder& by) { return logits(by, forward(by, single_layout(ids, 0), nullptr)); };
    EXPECT_LE(test::distance(logits_by(decoder), logits_by(model.decoder)), 2 * tolerance) << static_cast<int>(type);
  }
}

TEST_F(QuantisedFolder, AnAdapterBelongsToItsDecoderQuantisedOrNot) {
  const ModelSource source = open_model(folder / "decoder");
  for (const auto& [type, tolerance] : test::quantised_types) {
    const LoadOptions options = {type, at::kCPU, false};
    const Decoder decoder = load_decoder(source, options);
    const Adapter adapter = load_adapter(folder / "adapter", decoder, options);
    EXPECT_TRUE(adapter.cross_attention[1]->query.packed);
    EXPECT_FALSE(adapter.cross_attention[1]->key.packed);
  }
}

}  // namespace
}  // namespace cepe::model
