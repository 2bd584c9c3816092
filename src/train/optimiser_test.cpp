#include "train/optimiser.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "golden_tensors.h"
#include "tiny_models.h"
#include "train/orthogonalise.h"

namespace cepe::train {
namespace {

using test::distance;

Parameter parameter(const at::Tensor& value, const std::string& name = "model.layers.0.mlp.down_proj.weight") {
  return {value.requires_grad_(true), {{name, 0, value.size(0)}}, Parameter::Group::cross_attention};
}

at::Tensor numbers(std::initializer_list<double> values) {
  return at::tensor(std::vector<double>(values), at::kDouble).to(at::kFloat);
}

// A draw that is the same everywhere.
at::Tensor drawn(at::IntArrayRef shape, uint64_t seed) {
  return at::empty(shape, at::kFloat).normal_(0, 1, at::detail::createCPUGenerator(seed));
}

double one_step(Optimiser& optimiser, const at::Tensor& gradient, double rate_share = 1, double scale = 1) {
  at::Tensor leaf = optimiser.parameters().front().value;
  leaf.mutable_grad() = gradient.to(leaf.scalar_type());
  optimiser.accumulate();
  EXPECT_FALSE(leaf.grad().defined());
  return optimiser.step(rate_share, scale);
}

// AdamW as arXiv 1711.05101, algorithm 2, writes it, in float64.
struct TextbookAdamW {
  at::Tensor weight, momentum = at::zeros_like(weight), variance = at::zeros_like(weight);
  int steps = 0;
  void step(const at::Tensor& gradient, const OptimiserSettings& settings, double rate) {
    ++steps;
    momentum = settings.beta1 * momentum + (1 - settings.beta1) * gradient;
    variance = settings.beta2 * variance + (1 - settings.beta2) * gradient * gradient;
    const at::Tensor mean = momentum / (1 - std::pow(settings.beta1, steps)),
                     square = variance / (1 - std::pow(settings.beta2, steps));
    weight = weight - rate * (mean / (square.sqrt() + settings.eps) + settings.weight_decay * weight);
  }
};

TEST(AdamW, StepsAsTheTextbookDoes) {
  const OptimiserSettings settings = {.rate = 0.01, .weight_decay = 0.1, .beta1 = 0.8, .beta2 = 0.9, .clip = 0};
  const at::Tensor start = drawn({5, 3}, 1);
  Optimiser optimiser({parameter(start.clone())}, settings, 0);
  TextbookAdamW textbook = {start.to(at::kDouble)};
  for (uint64_t step = 1; step <= 20; ++step) {
    const at::Tensor gradient = drawn({5, 3}, 100 + step);
    const double share = 1 / static_cast<double>(step);
    one_step(optimiser, gradient, share);
    textbook.step(gradient.to(at::kDouble), settings, settings.rate * share);
    ASSERT_LE(distance(optimiser.parameters()[0].value, textbook.weight), 1e-6) << step;
  }
}

TEST(AdamW, FirstStepIsTheRateWhateverTheGradientsSize) {
  Optimiser optimiser({parameter(numbers({1, 1, 1}))}, {.rate = 0.25, .clip = 0}, 0);
  one_step(optimiser, numbers({1e-3, -1e3, 2}));
  EXPECT_LE(distance(optimiser.parameters()[0].value, numbers({0.75, 1.25, 0.75})), 1e-4);
}

TEST(AdamW, WeightDecayAloneShrinksByRateTimesDecay) {
  Optimiser optimiser({parameter(numbers({2, -4}))}, {.rate = 0.1, .weight_decay = 0.5}, 0);
  one_step(optimiser, numbers({0, 0}));
  EXPECT_LE(distance(optimiser.parameters()[0].value, numbers({1.9, -3.8})), 1e-6);
}

TEST(AdamW, EncoderHasARateOfItsOwn) {
  Parameter encoder = parameter(numbers({1}), "encoder.norm.weight"), block = parameter(numbers({1}), "block");
  encoder.group = Parameter::Group::encoder;
  Optimiser optimiser({encoder, block}, {.rate = 0.1, .encoder_rate = 0.5}, 0);
  for (const Parameter& one : optimiser.parameters()) one.value.mutable_grad() = numbers({1});
  optimiser.accumulate();
  optimiser.step(1, 1);
  EXPECT_NEAR(encoder.value.item<double>(), 0.95, 1e-6);
  EXPECT_NEAR(block.value.item<double>(), 0.9, 1e-6);
}

// Gradient 3-4-12: norm 13.
TEST(Clipping, ScalesAllGradientsToTheLargestNormAndTellsTheNormBefore) {
  for (const double clip : {0.0, 1.0, 20.0}) {
    Optimiser optimiser({parameter(numbers({0, 0})), parameter(numbers({0}), "b")}, {.clip = clip}, 0);
    optimiser.parameters()[0].value.mutable_grad() = numbers({3, 4});
    optimiser.parameters()[1].value.mutable_grad() = numbers({12});
    optimiser.accumulate();
    EXPECT_NEAR(optimiser.step(1, 1), 13, 1e-5);
    // After a first step the momentum is (1 - beta1) times the clipped gradient.
    const double scale = clip == 1 ? 1 / 13.0 : 1;
    optimiser.visit([&](const std::string& name, at::Tensor& tensor) {
      if (name != "momentum.b") return;
      EXPECT_NEAR(tensor.item<double>(), 0.1 * 12 * scale, 1e-5) << clip;
    });
  }
}

TEST(Accumulation, OfPartsIsTheirMean) {
  const OptimiserSettings settings = {.rate = 0.01, .clip = 1};
  Optimiser whole({parameter(drawn({4, 4}, 1))}, settings, 0), parts({parameter(drawn({4, 4}, 1))}, settings, 0);
  for (uint64_t step = 0; step < 3; ++step) {
    const at::Tensor first = drawn({4, 4}, 10 + step), second = drawn({4, 4}, 20 + step);
    const double norm = one_step(whole, (first + second) / 2);
    parts.parameters()[0].value.mutable_grad() = first;
    parts.accumulate();
    EXPECT_NEAR(one_step(parts, second, 1, 0.5), norm, 1e-5);
  }
  EXPECT_LE(distance(parts.parameters()[0].value, whole.parameters()[0].value), 1e-6);
}

std::vector<std::pair<std::string, at::Tensor>> state_of(Optimiser& optimiser) {
  std::vector<std::pair<std::string, at::Tensor>> state;
  optimiser.visit([&](const std::string& name, at::Tensor& tensor) { state.emplace_back(name, tensor.clone()); });
  return state;
}

class NotFinite : public testing::TestWithParam<OptimiserSettings> {};

// Nothing of the step is left behind: the next one is as if it had never been.
TEST_P(NotFinite, GradientsLeaveEverythingAsItIs) {
  const auto type = GetParam().master_weights ? at::kFloat : at::kBFloat16;
  Optimiser optimiser({parameter(drawn({4, 4}, 1).to(type))}, GetParam(), 3),
      undisturbed({parameter(drawn({4, 4}, 1).to(type))}, GetParam(), 3);
  one_step(optimiser, drawn({4, 4}, 2));
  one_step(undisturbed, drawn({4, 4}, 2));
  const auto before = state_of(optimiser);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    at::Tensor gradient = drawn({4, 4}, 3);
    gradient[1][2].fill_(bad);
    EXPECT_FALSE(std::isfinite(one_step(optimiser, gradient)));
    const auto after = state_of(optimiser);
    for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(after[i].second.equal(before[i].second)) << before[i].first;
    EXPECT_TRUE(optimiser.parameters()[0].value.equal(undisturbed.parameters()[0].value));
  }
  one_step(optimiser, drawn({4, 4}, 4));
  one_step(undisturbed, drawn({4, 4}, 4));
  EXPECT_TRUE(optimiser.parameters()[0].value.equal(undisturbed.parameters()[0].value));
}

INSTANTIATE_TEST_SUITE_P(Kinds, NotFinite,
                         testing::Values(OptimiserSettings{.kind = "adamw"}, OptimiserSettings{.kind = "muon"},
                                         OptimiserSettings{.kind = "adamw", .master_weights = false}));

TEST(Muon, MakesSingularValuesNearlyOne) {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{24, 24}, {16, 48}, {48, 16}}) {
    const at::Tensor directions = orthogonalised(drawn({3, rows, columns}, 5));
    ASSERT_EQ(directions.sizes(), (at::IntArrayRef{3, rows, columns}));
    const at::Tensor values = at::linalg_svdvals(directions);
    EXPECT_GT(values.min().item<double>(), 0.3) << rows << " x " << columns;
    EXPECT_LT(values.max().item<double>(), 1.3) << rows << " x " << columns;
    EXPECT_NEAR(values.mean().item<double>(), 0.95, 0.15);
  }
}

// The nearest orthogonal matrix has the same singular vectors: U^T O V is diagonal and positive.
TEST(Muon, KeepsTheSingularVectors) {
  const at::Tensor diagonal = numbers({4, 2, 1}).diag();
  const at::Tensor direction = orthogonalised(diagonal.unsqueeze(0))[0];
  const at::Tensor rest = direction - direction.diag().diag();
  EXPECT_LE(rest.abs().max().item<double>(), 1e-5);
  EXPECT_GT(direction.diag().min().item<double>(), 0.5);
}

// Root mean square of an orthogonal [r, c] matrix: 1/sqrt(max(r, c)); times 0.2 sqrt(max(r, c)).
TEST(Muon, StepsAreAsLargeAsTheRateSays) {
  Optimiser optimiser({parameter(drawn({32, 32}, 1))}, {.kind = "muon", .rate = 0.1}, 0);
  const at::Tensor before = optimiser.parameters()[0].value.detach().clone();
  one_step(optimiser, drawn({32, 32}, 2) * 1e-3, 0.5);
  const double size = (optimiser.parameters()[0].value.detach() - before).square().mean().sqrt().item<double>();
  EXPECT_NEAR(size, 0.5 * 0.1 * 0.2, 0.2 * 0.5 * 0.1 * 0.2);
}

// m = momentum * m + g; the direction is that of g + momentum * m.
TEST(Muon, LooksAheadByItsMomentum) {
  const OptimiserSettings settings = {.kind = "muon", .rate = 0.1, .weight_decay = 0.25, .momentum = 0.5, .clip = 0};
  Optimiser optimiser({parameter(drawn({8, 6}, 1))}, settings, 0);
  at::Tensor weight = drawn({8, 6}, 1), momentum = at::zeros({8, 6});
  for (uint64_t step = 0; step < 4; ++step) {
    const at::Tensor gradient = drawn({8, 6}, 10 + step);
    one_step(optimiser, gradient);
    momentum = momentum * 0.5 + gradient;
    const at::Tensor direction = orthogonalised((gradient + momentum * 0.5).unsqueeze(0))[0];
    weight = weight * (1 - 0.1 * 0.25) - direction * (0.1 * 0.2 * std::sqrt(8.0));
  }
  EXPECT_LE(distance(optimiser.parameters()[0].value, weight), 1e-5);
}

TEST(Muon, TakesFusedWeightsApart) {
  Parameter fused = parameter(drawn({12, 8}, 1));
  fused.parts = {{"q", 0, 8}, {"k", 8, 4}};
  Optimiser together({fused}, {.kind = "muon", .clip = 0}, 0),
      alone({parameter(drawn({12, 8}, 1).narrow(0, 8, 4).clone())}, {.kind = "muon", .clip = 0}, 0);
  const at::Tensor gradient = drawn({12, 8}, 2);
  one_step(together, gradient);
  one_step(alone, gradient.narrow(0, 8, 4));
  EXPECT_LE(distance(together.parameters()[0].value.narrow(0, 8, 4), alone.parameters()[0].value), 1e-6);
}

TEST(Muon, LeavesVectorsAndTablesToAdamW) {
  const OptimiserSettings muon = {.kind = "muon", .rate = 0.1, .vector_rate = 0.5};
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight", "encoder.embed_tokens.weight"}) {
    Optimiser optimiser({parameter(at::full({2, 2}, 1.0), name)}, muon, 0);
    one_step(optimiser, at::full({2, 2}, 3.0));
    EXPECT_LE(distance(optimiser.parameters()[0].value, at::full({2, 2}, 0.95)), 1e-5) << name;
  }
  Optimiser vector({parameter(at::full({2}, 1.0))}, muon, 0);
  one_step(vector, at::full({2}, 3.0));
  EXPECT_LE(distance(vector.parameters()[0].value, at::full({2}, 0.95)), 1e-5);
}

TEST(StochasticRounding, KeepsTheMeanAndChoosesNeighbours) {
  const double low = 1.0, high = 1.0 + 1.0 / 128;  // neighbours in bfloat16
  const at::Tensor values = at::full({1 << 16}, 0.75 * low + 0.25 * high, at::kFloat);
  const at::Tensor rounded = rounded_stochastically(values, rounding_noise(values, 9)).to(at::kDouble);
  EXPECT_TRUE(((rounded == low) | (rounded == high)).all().item<bool>());
  EXPECT_NEAR((rounded == high).to(at::kDouble).mean().item<double>(), 0.25, 0.01);
  EXPECT_TRUE(rounding_noise(values, 9).equal(rounding_noise(values, 9)));
  EXPECT_FALSE(rounding_noise(values, 9).equal(rounding_noise(values, 10)));
}

TEST(StochasticRounding, LeavesWhatBfloat16HoldsAsItIs) {
  const at::Tensor values = drawn({1000}, 3).to(at::kBFloat16).to(at::kFloat);
  EXPECT_TRUE(rounded_stochastically(values, rounding_noise(values, 1)).to(at::kFloat).equal(values));
}

// Steps far below bfloat16's spacing at 1 (1/128): rounded to nearest they would all be lost.
TEST(StochasticRounding, LetsManySmallStepsAddUp) {
  Optimiser optimiser({parameter(at::full({4096}, 1.0, at::kBFloat16))}, {.rate = 2e-4, .master_weights = false}, 5);
  for (int step = 0; step < 100; ++step) one_step(optimiser, at::full({4096}, -1.0));
  EXPECT_NEAR(optimiser.parameters()[0].value.to(at::kDouble).mean().item<double>(), 1.02, 5e-4);
}

TEST(MasterWeights, GatherWhatTheLeavesCannotHold) {
  Optimiser optimiser({parameter(at::full({8}, 1.0, at::kBFloat16))}, {.rate = 2e-4}, 5);
  for (int step = 0; step < 100; ++step) one_step(optimiser, at::full({8}, -1.0));
  const at::Tensor leaf = optimiser.parameters()[0].value;
  EXPECT_LE(distance(optimiser.weight_behind(leaf), at::full({8}, 1.02)), 1e-5);
  EXPECT_TRUE(leaf.equal(at::full({8}, 1.02).to(at::kBFloat16)));
  const at::Tensor other = at::full({2}, 1.0);
  EXPECT_TRUE(optimiser.weight_behind(other).is_same(other));
}

}  // namespace
}  // namespace cepe::train
