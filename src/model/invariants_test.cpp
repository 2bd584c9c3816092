// Promises that hold for any model: shown on tiny random ones.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <csignal>
#include <utility>

#include "base/interrupt.h"
#include "golden_tensors.h"
#include "model/cepe_model.h"
#include "ops/int8_rows.h"
#include "ops/mixed_linear.h"
#include "tiny_models.h"

namespace cepe::model {
namespace {

using test::distance;
using test::tiny_model;
using test::TinyShape;
using test::TinyWeights;

// Two sums of the same numbers in another order.
constexpr double rounding = 3e-6;
constexpr int64_t tiny_vocabulary = TinyShape{}.vocabulary;

// Query heads to key/value heads 4:2 (grouped), 4:4, 4:1.
class Invariants : public testing::TestWithParam<int64_t> {
 protected:
  CepeModel model = make();
  TinyWeights random{static_cast<uint64_t>(77 + GetParam())};
  const Encoder& encoder = model.adapter->encoder;
  const at::NoGradGuard none;

  CepeModel make() const {
    TinyShape shape;
    shape.groups = GetParam();
    return tiny_model(static_cast<uint64_t>(GetParam()), shape);
  }
  at::Tensor tokens(at::IntArrayRef shape) { return random.tokens(shape, tiny_vocabulary); }

  // Hidden rows [T, C] of one sequence.
  at::Tensor run(const at::Tensor& ids, const ContextStates& context,
                 CrossAttentionPath path = CrossAttentionPath::automatic) const {
    return forward(model, ids.unsqueeze(0), {context}, path).squeeze(0);
  }
  at::Tensor frozen(const at::Tensor& ids) const { return forward(model.decoder, single_layout(ids, 0), nullptr); }
  // chunks [K, S], mask [K, S] or undefined.
  ContextStates context_of(const at::Tensor& chunks, const at::Tensor& mask = {}) const {
    return encode_chunks(encoder, chunks.unsqueeze(0), mask.defined() ? mask.unsqueeze(0) : mask).front();
  }
};

TEST_P(Invariants, WithoutContextTheFrozenDecoderBitForBit) {
  const at::Tensor ids = tokens({11});
  EXPECT_TRUE(run(ids, {}).equal(frozen(ids)));
  EXPECT_GT(distance(run(ids, context_of(tokens({2, 8}))), frozen(ids)), 1e-2) << "a context must matter";
}

TEST_P(Invariants, AllChunksMaskedIsNoContext) {
  const at::Tensor ids = tokens({9}), chunks = tokens({3, 8});
  const ContextStates context = context_of(chunks, at::zeros({3, 8}, at::kLong));
  EXPECT_EQ(context.rows, 0);
  EXPECT_TRUE(run(ids, context).equal(frozen(ids)));
}

TEST_P(Invariants, AMaskedChunkIsAbsent) {
  const at::Tensor ids = tokens({9}), chunks = tokens({3, 8});
  const at::Tensor mask = at::ones({3, 8}, at::kLong);
  mask[1].zero_();
  const at::Tensor others = at::cat({chunks.narrow(0, 0, 1), chunks.narrow(0, 2, 1)}, 0);
  EXPECT_LE(distance(run(ids, context_of(chunks, mask)), run(ids, context_of(others))), rounding);
}

TEST_P(Invariants, TheOrderOfWholeChunksChangesNothingBeyondRounding) {
  const at::Tensor ids = tokens({13}), chunks = tokens({5, 8});
  const at::Tensor shuffled = at::cat({chunks[3], chunks[0], chunks[4], chunks[2], chunks[1]}, 0).reshape({5, 8});
  for (const auto path : {CrossAttentionPath::projected, CrossAttentionPath::absorbed})
    EXPECT_LE(distance(run(ids, context_of(shuffled), path), run(ids, context_of(chunks), path)), rounding);
}

// Neighbours in memory are read without a copy: in order, out of it, with gaps.
TEST_P(Invariants, WhereThePagesLieInMemoryChangesNothing) {
  const at::Tensor ids = tokens({13}), states = at::cat(context_of(tokens({6, 8})).pages, 0);
  const auto here = [&](int64_t page) { return states.narrow(0, 8 * page, 8); };
  for (const std::vector<int64_t>& order : {std::vector<int64_t>{0, 1, 2, 3, 4, 5}, {5, 4, 3}, {0, 1, 3, 4, 2}}) {
    ContextStates views, copies;
    for (const int64_t page : order) {
      views.append(here(page));
      copies.append(here(page).clone());
    }
    for (const auto path : {CrossAttentionPath::projected, CrossAttentionPath::absorbed})
      EXPECT_TRUE(run(ids, views, path).equal(run(ids, copies, path)));
  }
}

// Pages of 8 bits are those of the values that they stand for, on every path.
TEST_P(Invariants, PackedPagesAreReadAsTheirValues) {
  const at::Tensor ids = tokens({13});
  ContextStates packed, dense;
  for (const int64_t rows : {8, 8, 5, 8}) {
    packed.append(ops::int8_rows(context_of(tokens({1, rows})).pages.front()));
    dense.append(ops::unpacked_rows(packed.pages.back(), at::kFloat));
  }
  EXPECT_EQ(packed.rows, 29);
  EXPECT_EQ(packed.state_width(), dense.state_width());
  for (const auto path : {CrossAttentionPath::projected, CrossAttentionPath::absorbed})
    EXPECT_TRUE(run(ids, packed, path).equal(run(ids, dense, path)));
  const auto kept = [&](ContextStates context) {
    keep_projections(context, cross_attention_blocks(model), head_shape(model.decoder.config), at::kFloat);
    return run(ids, context, CrossAttentionPath::kept);
  };
  EXPECT_TRUE(kept(packed).equal(kept(dense)));
}

TEST_P(Invariants, StatesOfAChunkDependOnItsOwnTokensOnly) {
  const at::Tensor chunks = tokens({4, 8});
  at::Tensor others = tokens({4, 8});
  others[2].copy_(chunks[2]);
  const at::Tensor among = forward(encoder, chunks)[2];
  EXPECT_LE(distance(forward(encoder, others)[2], among), rounding);
  EXPECT_LE(distance(forward(encoder, chunks.narrow(0, 2, 1))[0], among), rounding);
  at::Tensor changed = chunks.clone();
  changed[2][7] = (changed[2][7] + 1) % tiny_vocabulary;
  EXPECT_GT(distance(forward(encoder, changed)[2][0], among[0]), 1e-3) << "the first token sees the last";
}

TEST_P(Invariants, PaddingIsInvisible) {
  const at::Tensor ids = tokens({10}), chunk = tokens({1, 5});
  const ContextStates plain = context_of(chunk);
  for (const int64_t filler : {0, 17}) {
    const at::Tensor padded = at::cat({chunk, at::full({1, 3}, filler, at::kLong)}, 1);
    const at::Tensor mask = (at::arange(8, at::kLong) < 5).unsqueeze(0);
    const ContextStates context = context_of(padded, mask);
    EXPECT_EQ(context.rows, 5);
    EXPECT_LE(distance(at::cat(context.pages, 0), at::cat(plain.pages, 0)), rounding);
    EXPECT_LE(distance(run(ids, context), run(ids, plain)), rounding);
  }
}

TEST_P(Invariants, PaddingIsInvisibleInABatchBesideASequenceWithoutContext) {
  const at::Tensor ids = tokens({3, 10}), chunks = tokens({3, 2, 8});
  at::Tensor mask = at::ones({3, 2, 8}, at::kLong);
  mask[0][1].narrow(0, 6, 2).zero_();
  mask[1].zero_();
  const at::Tensor batched = forward(model, ids, encode_chunks(encoder, chunks, mask));
  EXPECT_LE(distance(batched[1], frozen(ids[1])), rounding);
  for (const int64_t b : {0, 2}) {
    ContextStates alone;
    alone.append(forward(encoder, chunks[b].narrow(0, 0, 1))[0]);
    alone.append(forward(encoder, chunks[b].narrow(0, 1, 1).narrow(1, 0, b == 0 ? 6 : 8))[0]);
    EXPECT_LE(distance(batched[b], run(ids[b], alone)), rounding) << b;
  }
}

TEST_P(Invariants, AbsorbedProjectedAndKeptAreTheSameSum) {
  for (const int64_t rows : {1, 7, 40}) {
    const at::Tensor ids = tokens({rows});
    ContextStates context = context_of(tokens({6, 8}));
    const at::Tensor projected = run(ids, context, CrossAttentionPath::projected);
    EXPECT_LE(distance(run(ids, context, CrossAttentionPath::absorbed), projected), rounding) << rows;
    keep_projections(context, cross_attention_blocks(model), head_shape(model.decoder.config), at::kFloat);
    EXPECT_LE(distance(run(ids, context, CrossAttentionPath::kept), projected), rounding) << rows;
    EXPECT_LE(distance(run(ids, context), projected), rounding) << rows;
  }
}

TEST_P(Invariants, KeptIn8BitsIsThatSumToTheirRounding) {
  for (const int64_t rows : {1, 7, 40}) {
    const at::Tensor ids = tokens({rows});
    ContextStates context = context_of(tokens({6, 8}));
    const at::Tensor projected = run(ids, context, CrossAttentionPath::projected);
    keep_projections(context, cross_attention_blocks(model), head_shape(model.decoder.config), at::kByte);
    EXPECT_EQ(context.kept.front().type(), at::kByte);
    const double off = distance(run(ids, context, CrossAttentionPath::kept), projected);
    EXPECT_LT(off, 1e-2) << rows;
    EXPECT_GT(off, rounding) << rows << ": not in 8 bits";
  }
}

TEST_P(Invariants, GradientsByAbsorbedEqualThoseByProjected) {
  const at::AutoGradMode with_gradients(true);
  const at::Tensor ids = tokens({2, 9}), chunks = tokens({2, 3, 8}), direction = random.linear(18, 32).weight;
  const auto gradients = [&](CrossAttentionPath path) {
    CepeModel trained = make();
    visit_parameters(*trained.adapter, [](at::Tensor& weight) { weight.requires_grad_(true); });
    const at::Tensor hidden = forward(trained, ids, encode_chunks(trained.adapter->encoder, chunks, {}), path);
    (hidden.reshape({18, 32}) * direction).sum().backward();
    std::vector<at::Tensor> found;
    visit_parameters(*trained.adapter, [&](at::Tensor& weight) { found.push_back(weight.grad()); });
    return found;
  };
  const auto absorbed = gradients(CrossAttentionPath::absorbed), projected = gradients(CrossAttentionPath::projected);
  ASSERT_EQ(absorbed.size(), projected.size());
  for (size_t i = 0; i < absorbed.size(); ++i) {
    ASSERT_TRUE(projected[i].defined()) << i;
    EXPECT_GT(projected[i].abs().max().item<double>(), 0) << i;
    EXPECT_LE(distance(absorbed[i], projected[i]), test::gradient_tolerance) << i;
  }
}

// Sequences of unequal length with unequal contexts, one without any.
TEST_P(Invariants, BatchedEqualsOneByOne) {
  const std::vector<at::Tensor> ids = {tokens({4}), tokens({12}), tokens({1}), tokens({7})};
  const std::vector<ContextStates> contexts = {
      context_of(tokens({1, 8})), context_of(tokens({5, 8})), context_of(tokens({2, 3})), {}};
  BatchLayout layout;
  layout.tokens = at::cat(ids, 0);
  std::vector<at::Tensor> positions;
  CrossAttentionInput cross = {cross_attention_blocks(model), {}, CrossAttentionPath::automatic};
  int64_t first = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    layout.sequences.push_back({first, ids[i].size(0), 0, first});
    positions.push_back(at::arange(ids[i].size(0), at::kLong));
    cross.contexts.push_back(&contexts[i]);
    first += ids[i].size(0);
  }
  layout.positions = at::cat(positions, 0);
  KvCache cache = make_kv_cache(3, first, GetParam(), 8, at::kFloat);
  for (KvCache* used : {static_cast<KvCache*>(nullptr), &cache}) {
    const at::Tensor batched = forward(model.decoder, layout, used, cross);
    for (size_t i = 0; i < ids.size(); ++i) {
      const SequenceRows& rows = layout.sequences[i];
      EXPECT_LE(distance(batched.narrow(0, rows.first, rows.count), run(ids[i], contexts[i])), rounding) << i;
    }
  }
}

TEST_P(Invariants, CachedEqualsRecomputed) {
  const at::Tensor ids = tokens({14});
  const ContextStates context = context_of(tokens({3, 8}));
  const CrossAttentionInput cross = {cross_attention_blocks(model), {&context}, CrossAttentionPath::automatic};
  const at::Tensor whole = run(ids, context);
  for (const std::vector<int64_t>& pieces :
       {std::vector<int64_t>{5, 9}, {13, 1}, {1, 6, 7}, std::vector<int64_t>(14, 1)}) {
    KvCache cache = make_kv_cache(3, 14, GetParam(), 8, at::kFloat);
    std::vector<at::Tensor> hidden;
    int64_t cached = 0;
    for (const int64_t count : pieces) {
      hidden.push_back(forward(model.decoder, single_layout(ids.narrow(0, cached, count), cached), &cache, cross));
      cached += count;
    }
    EXPECT_LE(distance(at::cat(hidden, 0), whole), rounding) << pieces.size() << " pieces";
  }
}

TEST_P(Invariants, ReadingALongTextStopsAtCtrlC) {
  base::catch_interrupts();
  const auto read = [&](int64_t count) {
    KvCache cache = make_kv_cache(3, count, GetParam(), 8, at::kFloat);
    return forward(model.decoder, single_layout(tokens({count}), 0), &cache);
  };
  std::raise(SIGINT);
  EXPECT_THROW(read(256), base::Interrupted);
  EXPECT_EQ(read(255).size(0), 255);
  EXPECT_TRUE(base::forget_interrupt());
  EXPECT_EQ(read(256).size(0), 256);
}

// Against the same bfloat16 numbers multiplied in float32: matrices only (as a CPU loads them), then everything.
TEST_P(Invariants, Bfloat16StaysCloseToFloat32) {
  const at::Tensor ids = tokens({1, 12}), chunks = tokens({1, 3, 8});
  const auto result = [&](at::ScalarType matrices, at::ScalarType activations) {
    CepeModel changed = make();
    const auto round = [&](at::Tensor& weight) {
      weight = weight.to(at::kBFloat16).to(weight.dim() == 2 ? matrices : activations);
    };
    visit(changed.decoder, [&](const std::string&, at::Tensor& weight) { round(weight); });
    visit_parameters(*changed.adapter, round);
    changed.decoder.activation_type = activations;
    changed.adapter->encoder.activation_type = activations;
    return logits(changed.decoder, forward(changed, ids, encode_chunks(changed.adapter->encoder, chunks, {})));
  };
  const at::Tensor wide = result(at::kFloat, at::kFloat);
  for (const auto activations : {at::kFloat, at::kBFloat16}) {
    const double apart = distance(result(at::kBFloat16, activations), wide);
    EXPECT_LE(apart, 2e-2) << activations;
    // A processor without products of bfloat16 widens the matrices, which loses nothing.
    if (activations == at::kBFloat16 || ops::multiplies_bfloat16()) {
      EXPECT_GT(apart, 1e-6) << "bfloat16 was not used";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Groups, Invariants, testing::Values(1, 2, 4), testing::PrintToStringParamName());

}  // namespace
}  // namespace cepe::model
