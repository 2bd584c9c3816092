#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <functional>

#include "context/context_store.h"
#include "tiny_encoder.h"

namespace cepe::context {
namespace {

using test::encoder_width;
using test::tiny_adapter;

TEST(EncoderFingerprint, ChangesWithEverythingThatDecidesTheStates) {
  const model::Adapter adapter = tiny_adapter();
  const base::Digest original = encoder_fingerprint(adapter.encoder);
  EXPECT_EQ(encoder_fingerprint(model::Encoder(adapter.encoder)), original);
  const auto changes = [&](const char* what, const std::function<void(model::Encoder&)>& change) {
    model::Encoder encoder = adapter.encoder;
    change(encoder);
    EXPECT_NE(encoder_fingerprint(encoder), original) << what;
  };
  const auto nudge = [](at::Tensor& tensor) {
    tensor = tensor.clone();
    tensor.view({-1})[-1].add_(1e-3);
  };
  changes("embedding", [&](auto& encoder) { nudge(encoder.embedding.weight); });
  changes("layer norm", [&](auto& encoder) { nudge(encoder.layers[1].attention_norm.weight); });
  changes("q, k, v", [&](auto& encoder) { nudge(encoder.layers[0].query_key_value.weight); });
  changes("output", [&](auto& encoder) { nudge(encoder.layers[1].output.weight); });
  changes("second norm", [&](auto& encoder) { nudge(encoder.layers[0].feed_forward_norm.weight); });
  changes("gate and up", [&](auto& encoder) { nudge(encoder.layers[1].feed_forward.gate_up.weight); });
  changes("down", [&](auto& encoder) { nudge(encoder.layers[0].feed_forward.down.weight); });
  changes("last norm", [&](auto& encoder) { nudge(encoder.norm.weight); });
  changes("bias", [&](auto& encoder) { encoder.layers[0].output.bias = at::randn({encoder_width}); });
  changes("eps", [](auto& encoder) { encoder.norm.eps = 1e-4; });
  changes("theta", [](auto& encoder) { encoder.config.rope.theta = 500000; });
  changes("divisors", [](auto& encoder) { encoder.config.rope.divisors = {1, 2, 3, 4}; });
  changes("number of heads", [](auto& encoder) { encoder.config.heads = 1; });
  changes("activation", [](auto& encoder) { encoder.config.activation = ops::Activation::relu; });
  changes("arithmetic", [](auto& encoder) { encoder.activation_type = at::kBFloat16; });
  changes("type of a weight", [](auto& encoder) { encoder.norm.weight = encoder.norm.weight.to(at::kBFloat16); });
}

TEST(EncoderFingerprint, DependsOnValuesAndNotOnHowTheyLieInMemory) {
  model::Adapter adapter = tiny_adapter();
  const base::Digest original = encoder_fingerprint(adapter.encoder);
  at::Tensor& weight = adapter.encoder.layers[0].output.weight;
  weight = weight.t().contiguous().t();
  ASSERT_FALSE(weight.is_contiguous());
  EXPECT_EQ(encoder_fingerprint(adapter.encoder), original);
}

TEST(EncoderFingerprint, CoversPackedWeights) {
  model::Encoder encoder = tiny_adapter().encoder;
  const auto packed = [](float scale) {
    const at::Tensor values = (at::ones({encoder_width, encoder_width}) * 3).to(at::kChar);
    return std::make_shared<const ops::PackedWeight>(ops::pack_int8_rows(values, at::ones({encoder_width}) * scale));
  };
  encoder.layers[0].output = {{}, {}, packed(1)};
  const base::Digest one = encoder_fingerprint(encoder);
  encoder.layers[0].output.packed = packed(2);
  EXPECT_NE(encoder_fingerprint(encoder), one);
}

}  // namespace
}  // namespace cepe::context
