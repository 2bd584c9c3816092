// What training does differently from generation gives the same numbers: shared contexts, recomputed layers, LoRAs.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "distance.h"
#include "model/cepe_model.h"
#include "model/low_rank.h"
#include "tiny_models.h"

namespace cepe::model {
namespace {

using test::distance;

struct Windows {
  CepeModel model = test::tiny_model(7);
  at::Tensor tokens;  // [W * B, T]
  SharedContext shared;
  std::vector<ContextStates> contexts;  // the same, by sequence

  explicit Windows(int64_t texts, int64_t rows, std::vector<SharedContext::Slice> slices) {
    test::TinyWeights draw(3);
    const auto windows = static_cast<int64_t>(slices.size());
    tokens = draw.tokens({windows * texts, 9}, model.decoder.config.vocabulary);
    shared = {at::randn({texts, rows, model.adapter->encoder.config.width}), std::move(slices)};
    for (const auto& slice : shared.slices) {
      for (int64_t b = 0; b < texts; ++b) {
        ContextStates context;
        context.append(shared.states[b].narrow(0, slice.first, slice.rows));
        context.append(shared.states[(b + 1) % texts].narrow(0, 0, slice.others));
        contexts.push_back(context);
      }
    }
  }

  at::Tensor run_shared(const at::Tensor& states, bool recompute = false) const {
    CrossAttentionInput cross;
    cross.blocks = cross_attention_blocks(model);
    cross.shared = SharedContext{states, shared.slices};
    return forward(model.decoder, uniform_layout(tokens), nullptr, cross, recompute);
  }
};

TEST(SharedContexts, GiveWhatEachWindowsOwnContextGives) {
  const at::NoGradGuard none;
  const Windows windows(3, 24, {{0, 0, 0}, {0, 8, 0}, {4, 12, 0}, {0, 24, 8}, {0, 0, 8}});
  const at::Tensor apart = forward(windows.model, windows.tokens, windows.contexts).reshape({-1, 32});
  EXPECT_LE(distance(windows.run_shared(windows.shared.states), apart), 1e-5);
}

TEST(SharedContexts, WithoutAnyRowsAreTheFrozenDecoderBitForBit) {
  const at::NoGradGuard none;
  const Windows windows(2, 8, {{0, 0, 0}, {0, 0, 0}});
  const at::Tensor frozen = forward(windows.model.decoder, uniform_layout(windows.tokens), nullptr);
  EXPECT_TRUE(windows.run_shared(windows.shared.states).equal(frozen));
}

TEST(SharedContexts, HaveTheGradientsOfEachWindowsOwnContext) {
  const std::vector<SharedContext::Slice> slices = {{0, 0, 0}, {0, 8, 0}, {4, 12, 0}, {0, 24, 8}, {0, 0, 8}};
  Windows windows(3, 24, slices);
  std::vector<at::Tensor> leaves;
  visit_parameters(*windows.model.adapter, [&](at::Tensor& leaf) { leaves.push_back(leaf.requires_grad_()); });
  const auto gradients = [&](bool shared) {
    const at::Tensor states = windows.shared.states.clone().requires_grad_();
    std::vector<ContextStates> contexts(windows.contexts.size());
    for (size_t i = 0; i < contexts.size(); ++i) {
      const auto text = static_cast<int64_t>(i) % 3;
      const SharedContext::Slice& slice = slices[i / 3];
      contexts[i].append(states[text].narrow(0, slice.first, slice.rows));
      contexts[i].append(states[(text + 1) % 3].narrow(0, 0, slice.others));
    }
    const at::Tensor hidden =
        shared ? windows.run_shared(states) : forward(windows.model, windows.tokens, contexts).reshape({-1, 32});
    const at::Tensor weights = at::arange(hidden.numel(), hidden.options()).reshape(hidden.sizes()).sin();
    torch::autograd::backward({(hidden * weights).sum()}, {});
    std::vector<at::Tensor> found = {states.grad()};
    for (at::Tensor& leaf : leaves) {
      if (leaf.grad().defined()) found.push_back(leaf.grad());
      leaf.mutable_grad().reset();
    }
    return found;
  };
  const std::vector<at::Tensor> together = gradients(true), apart = gradients(false);
  ASSERT_EQ(together.size(), apart.size());
  ASSERT_GT(apart.size(), 5U);
  for (size_t i = 0; i < apart.size(); ++i) EXPECT_LE(distance(together[i], apart[i]), 3e-5) << i;
}

TEST(Recomputed, LayersHaveTheSameGradients) {
  Windows windows(2, 16, {{0, 0, 0}, {0, 8, 0}, {0, 16, 8}});
  std::vector<at::Tensor> leaves;
  visit_parameters(*windows.model.adapter, [&](at::Tensor& leaf) { leaves.push_back(leaf.requires_grad_()); });
  const auto gradients = [&](bool recompute) {
    const at::Tensor states = windows.shared.states.clone().requires_grad_();
    torch::autograd::backward({windows.run_shared(states, recompute).square().mean()}, {});
    std::vector<at::Tensor> found = {states.grad()};
    for (at::Tensor& leaf : leaves) {
      if (leaf.grad().defined()) found.push_back(leaf.grad());
      leaf.mutable_grad().reset();
    }
    return found;
  };
  const std::vector<at::Tensor> kept = gradients(false), again = gradients(true);
  ASSERT_EQ(kept.size(), again.size());
  ASSERT_GT(kept.size(), 5U);
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_LE(distance(again[i], kept[i]), 1e-5) << i;
}

TEST(Recomputed, LayersOverRaggedContextsHaveTheSameGradients) {
  Windows windows(2, 16, {{0, 8, 0}, {0, 16, 8}});
  const auto gradients = [&](bool recompute) {
    const at::Tensor states = windows.shared.states.clone().requires_grad_();
    std::vector<ContextStates> contexts(4);
    for (int64_t i = 0; i < 4; ++i) contexts[static_cast<size_t>(i)].append(states[i % 2].narrow(0, 0, 4 + 2 * i));
    CrossAttentionInput cross;
    cross.blocks = cross_attention_blocks(windows.model);
    for (const ContextStates& context : contexts) cross.contexts.push_back(&context);
    cross.path = CrossAttentionPath::projected;
    const at::Tensor hidden = forward(windows.model.decoder, uniform_layout(windows.tokens), nullptr, cross, recompute);
    torch::autograd::backward({hidden.square().mean()}, {});
    return states.grad();
  };
  EXPECT_LE(distance(gradients(true), gradients(false)), 1e-5);
}

TEST(LowRank, ChangesNothingUntilItIsTrained) {
  const at::NoGradGuard none;
  Decoder decoder = test::tiny_decoder(5);
  const at::Tensor tokens = test::TinyWeights(1).tokens({2, 7}, decoder.config.vocabulary);
  const at::Tensor before = forward(decoder, uniform_layout(tokens), nullptr);
  add_low_rank(decoder, 4, 8, {"q_proj", "v_proj"}, 11);
  EXPECT_TRUE(forward(decoder, uniform_layout(tokens), nullptr).equal(before));
}

TEST(LowRank, MergedGivesWhatItGaveApart) {
  const at::NoGradGuard none;
  Decoder decoder = test::tiny_decoder(5);
  const at::Tensor tokens = test::TinyWeights(1).tokens({2, 7}, decoder.config.vocabulary);
  const at::Tensor before = forward(decoder, uniform_layout(tokens), nullptr);
  add_low_rank(decoder, 4, 8, {"v_proj", "q_proj"}, 11);
  visit_low_rank(decoder, [](const std::string& name, at::Tensor& part) {
    if (name.find("lora_B") != std::string::npos) part.copy_(at::randn(part.sizes()) * 0.1);
  });
  const at::Tensor apart = forward(decoder, uniform_layout(tokens), nullptr);
  EXPECT_GT(distance(apart, before), 1e-2);
  merge_low_rank(decoder);
  EXPECT_TRUE(decoder.layers.front().attention.query_key_value.low_rank.empty());
  EXPECT_LE(distance(forward(decoder, uniform_layout(tokens), nullptr), apart), 1e-5);
}

}  // namespace
}  // namespace cepe::model
