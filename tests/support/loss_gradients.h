// What the losses of ops/chunked_loss.h promise, for any device: the tests on the CPU and on a GPU run these bodies.
#pragma once

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tanh.h>

#include "ops/chunked_loss.h"
#include "ops_gradients.h"

namespace cepe::test {

inline at::Tensor composed_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                         double cap) {
  at::Tensor logits = at::matmul(hidden, weight.t());
  if (cap > 0) logits = at::tanh(logits / cap) * cap;
  const at::Tensor taken = at::log_softmax(logits, -1).gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1);
  const at::Tensor counted = labels.ne(ops::ignored_label).to(taken.scalar_type());
  return -(taken * counted).sum() / counted.sum().clamp_min(1);
}

struct LossCase {
  int64_t rows, channels, vocabulary;
  double cap = 0, size = 1;
  int64_t rows_per_chunk = 0;
};

// Value and both gradients of linear_cross_entropy against autograd in float64; every fourth label is ignored.
inline void expect_cross_entropy(const LossCase& given, at::Device device, at::ScalarType type) {
  SCOPED_TRACE(c10::str("rows ", given.rows, " vocabulary ", given.vocabulary, " cap ", given.cap, " chunk ",
                        given.rows_per_chunk, " ", type, " ", device));
  const at::Tensor hidden = (at::randn({given.rows, given.channels}) * given.size).to(type);
  const at::Tensor weight = (at::randn({given.vocabulary, given.channels}) * 0.3).to(type);
  at::Tensor labels = at::randint(given.vocabulary, {given.rows}, at::kLong);
  labels.slice(0, 1, c10::nullopt, 4).fill_(ops::ignored_label);
  const Tensors wide = followed({hidden, weight}, at::kCPU, at::kDouble),
                own = followed({hidden, weight}, device, type);
  const at::Tensor expected = composed_cross_entropy(wide[0], wide[1], labels, given.cap);
  const at::Tensor loss = ops::linear_cross_entropy(own[0], own[1], labels.to(device), given.cap, given.rows_per_chunk);
  ASSERT_EQ(loss.scalar_type(), at::kFloat);
  ASSERT_EQ(loss.dim(), 0);
  const double tolerance = type == at::kFloat ? 1e-5 : 2e-2;
  EXPECT_LE(distance(loss, expected), tolerance);
  // Scaled, as accumulation over batches scales it.
  const Tensors wanted = torch::autograd::grad({expected * 0.25}, wide),
                found = torch::autograd::grad({loss * 0.25}, own);
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_EQ(found[i].scalar_type(), type);
    EXPECT_LE(distance(found[i], wanted[i]), tolerance) << (i == 0 ? "hidden" : "weight");
  }
}

inline void expect_cross_entropy_gradients(at::Device device) {
  for (const at::ScalarType type : kernel_types) {
    for (const int64_t vocabulary : {2, 7, 8, 33, 1000, 4099}) {
      for (const double cap : {0.0, 3.0}) {
        for (const int64_t chunk : {0, 1, 5}) expect_cross_entropy({11, 16, vocabulary, cap, 1, chunk}, device, type);
      }
    }
    expect_cross_entropy({1, 1, 5}, device, type);
    expect_cross_entropy({300, 24, 513, 0, 1, 128}, device, type);
    expect_cross_entropy({6, 16, 200, 0, 40}, device, type);  // logits of hundreds
    expect_cross_entropy({3, 8, 70001}, device, type);        // rows that outgrow a block's shared memory
    expect_cross_entropy({3, 8, 57344, 30}, device, type);
  }
}

inline void expect_cross_entropy_without_labels_to_be_zero(at::Device device) {
  for (const at::ScalarType type : kernel_types) {
    for (const int64_t rows : {0, 5}) {
      const Tensors own = followed({at::randn({rows, 8}), at::randn({40, 8})}, device, type);
      const at::Tensor labels = at::full({rows}, ops::ignored_label, at::TensorOptions(device).dtype(at::kLong));
      const at::Tensor loss = ops::linear_cross_entropy(own[0], own[1], labels, 0, 2);
      EXPECT_EQ(loss.item<float>(), 0);
      const Tensors gradients = torch::autograd::grad({loss}, own);
      EXPECT_EQ(gradients[0].sizes(), own[0].sizes());
      EXPECT_EQ(gradients[1].sizes(), own[1].sizes());
      EXPECT_TRUE(gradients[0].eq(0).all().item<bool>() && gradients[1].eq(0).all().item<bool>());
    }
  }
}

// A row that is not counted may hold anything.
inline void expect_ignored_rows_not_to_matter(at::Device device) {
  for (const at::ScalarType type : kernel_types) {
    const at::Tensor weight = at::randn({50, 8}).to(device, type);
    at::Tensor hidden = at::randn({4, 8}).to(device, type);
    hidden.select(0, 2).fill_(std::numeric_limits<float>::infinity());
    hidden.requires_grad_(true);
    at::Tensor labels = at::arange(4, at::TensorOptions(device).dtype(at::kLong));
    labels.select(0, 2).fill_(ops::ignored_label);
    const at::Tensor loss = ops::linear_cross_entropy(hidden, weight, labels);
    EXPECT_TRUE(std::isfinite(loss.item<float>()));
    const at::Tensor gradient = torch::autograd::grad({loss}, {hidden})[0];
    EXPECT_TRUE(gradient.isfinite().all().item<bool>());
    EXPECT_TRUE(gradient.select(0, 2).eq(0).all().item<bool>());
  }
}

inline void expect_frozen_parts_to_get_no_gradient(at::Device device) {
  const at::Tensor hidden = at::randn({6, 8}).to(device), weight = at::randn({30, 8}).to(device);
  const at::Tensor labels = at::arange(6, at::TensorOptions(device).dtype(at::kLong));
  const auto loss = [&](const at::Tensor& h, const at::Tensor& w) { return ops::linear_cross_entropy(h, w, labels); };
  const Tensors both = followed({hidden, weight}, device, at::kFloat);
  const Tensors wanted = torch::autograd::grad({loss(both[0], both[1])}, both);
  const Tensors one = followed({hidden, weight}, device, at::kFloat);
  EXPECT_TRUE(torch::autograd::grad({loss(one[0], weight)}, {one[0]})[0].equal(wanted[0]));
  EXPECT_TRUE(torch::autograd::grad({loss(hidden, one[1])}, {one[1]})[0].equal(wanted[1]));
  const at::Tensor plain = loss(hidden, weight);
  EXPECT_FALSE(plain.requires_grad());
  EXPECT_LE(distance(plain, loss(both[0], both[1])), 1e-6);
  const at::NoGradGuard none;
  EXPECT_FALSE(loss(both[0], both[1]).requires_grad());
}

// A float32 master weight beside bfloat16 hidden states gets its gradient in float32.
inline void expect_weights_of_another_type(at::Device device) {
  const at::Tensor hidden = at::randn({40, 8}).to(at::kBFloat16), weight = at::randn({30, 8});
  const at::Tensor labels = at::randint(30, {40}, at::kLong);
  const at::Tensor own = weight.to(device).requires_grad_(true);
  const at::Tensor wide = weight.to(at::kBFloat16).to(at::kDouble).requires_grad_(true);
  const at::Tensor found =
      torch::autograd::grad({ops::linear_cross_entropy(hidden.to(device), own, labels.to(device), 0, 7)}, {own})[0];
  const at::Tensor wanted =
      torch::autograd::grad({composed_cross_entropy(hidden.to(at::kDouble), wide, labels, 0)}, {wide})[0];
  EXPECT_EQ(found.scalar_type(), at::kFloat);
  EXPECT_LE(distance(found, wanted), 2e-2);
}

inline void expect_labels_outside_to_be_noticed(at::Device device) {
  for (const int64_t label : {int64_t{30}, int64_t{-1}, int64_t{-101}, int64_t{1} << 40}) {
    const at::Tensor hidden = at::randn({3, 8}).to(device).requires_grad_(true), weight = at::randn({30, 8}).to(device);
    at::Tensor labels = at::arange(3, at::TensorOptions(device).dtype(at::kLong));
    labels.select(0, 1).fill_(label);
    if (device.is_cpu()) {
      EXPECT_THROW(ops::linear_cross_entropy(hidden, weight, labels), base::Error) << label;
      continue;
    }
    const at::Tensor loss = ops::linear_cross_entropy(hidden, weight, labels);
    EXPECT_TRUE(std::isnan(loss.item<float>())) << label;
    const at::Tensor gradient = torch::autograd::grad({loss}, {hidden})[0].cpu();
    EXPECT_TRUE(gradient[1].isnan().all().item<bool>()) << label;
    EXPECT_TRUE(gradient[0].isfinite().all().item<bool>() && gradient[2].isfinite().all().item<bool>()) << label;
  }
}

// A loss of one's own, here of the rows' numbers and all logits, is that of all logits at once.
inline void expect_chunked_loss_gradients(at::Device device) {
  for (const at::ScalarType type : kernel_types) {
    const at::Tensor hidden = at::randn({13, 8}).to(type), weight = (at::randn({21, 8}) * 0.3).to(type);
    const auto loss = [](const at::Tensor& logits, int64_t first, int64_t rows) {
      const at::Tensor factors = at::arange(first, first + rows, at::TensorOptions(logits.device()));
      const at::ScalarType wide = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      return (at::log_softmax(logits, -1, wide).square().mean(-1) * factors.to(wide)).sum();
    };
    const Tensors wide = followed({hidden, weight}, at::kCPU, at::kDouble);
    const at::Tensor expected = loss(at::matmul(wide[0], wide[1].t()), 0, 13);
    const Tensors wanted = torch::autograd::grad({expected}, wide);
    for (const int64_t chunk : {0, 1, 4, 13, 100}) {
      const Tensors own = followed({hidden, weight}, device, type);
      int64_t seen = 0;
      const at::Tensor found = ops::chunked_loss(
          own[0], own[1],
          [&](const at::Tensor& logits, int64_t first, int64_t rows) {
            EXPECT_EQ(first, seen);
            EXPECT_LE(rows, chunk == 0 ? 13 : chunk);
            EXPECT_EQ(logits.sizes(), at::IntArrayRef({rows, 21}));
            EXPECT_EQ(logits.scalar_type(), type);
            seen += rows;
            return loss(logits, first, rows);
          },
          chunk);
      EXPECT_EQ(seen, 13);
      EXPECT_EQ(found.scalar_type(), at::kFloat);
      const double tolerance = type == at::kFloat ? 1e-5 : 2e-2;
      EXPECT_LE(distance(found, expected), tolerance);
      const Tensors gradients = torch::autograd::grad({found * 3}, own);
      for (size_t i = 0; i < 2; ++i) EXPECT_LE(distance(gradients[i], wanted[i] * 3), tolerance) << chunk << " " << i;
    }
  }
}

inline void expect_constant_losses_to_have_zero_gradients(at::Device device) {
  const Tensors own = followed({at::randn({5, 8}), at::randn({9, 8})}, device, at::kFloat);
  const at::Tensor loss = ops::chunked_loss(
      own[0], own[1],
      [](const at::Tensor& logits, int64_t first, int64_t /*rows*/) {
        return first == 0 ? logits.sum() : at::full_like(logits.detach().select(0, 0).select(0, 0), 2);
      },
      3);
  const Tensors gradients = torch::autograd::grad({loss}, own);
  EXPECT_TRUE(gradients[0].narrow(0, 3, 2).eq(0).all().item<bool>());
  EXPECT_LE(distance(gradients[0][0], own[1].sum(0)), 1e-5);
  EXPECT_LE(distance(gradients[1][0], own[0].narrow(0, 0, 3).sum(0)), 1e-5);
}

}  // namespace cepe::test
