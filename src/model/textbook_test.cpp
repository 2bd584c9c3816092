// Encoder, cross-attention and decoder against plain loops in float64 (tests/support/textbook_model.h).
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "golden_tensors.h"
#include "model/cepe_model.h"
#include "textbook_model.h"
#include "tiny_models.h"

namespace cepe::model {
namespace {

using test::distance;
using test::Rows;
using test::textbook_logits;
using test::textbook_states;
using test::tiny_model;

at::Tensor tensor_of(const Rows& rows) {
  at::Tensor tensor =
      at::empty({static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows.front().size())}, at::kDouble);
  double* next = tensor.data_ptr<double>();
  for (const auto& row : rows) next = std::copy(row.begin(), row.end(), next);
  return tensor;
}

std::vector<int64_t> ids_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

class Textbook : public testing::TestWithParam<uint64_t> {
 protected:
  const CepeModel model = tiny_model(GetParam());
  test::TinyWeights random{GetParam() + 5};
  const at::NoGradGuard none;
  const at::Tensor ids = random.tokens({1, 9}, 96), chunks = random.tokens({1, 3, 6}, 96);
  at::Tensor mask = at::ones({1, 3, 6}, at::kLong);

  // The second chunk has its last two tokens masked, the third one in the middle.
  void SetUp() override {
    mask[0][1].narrow(0, 4, 2).zero_();
    mask[0][2][3] = 0;
  }
  Rows states() const {
    Rows all;
    for (int64_t k = 0; k < 3; ++k) {
      const Rows rows = textbook_states(model.adapter->encoder, ids_of(chunks[0][k]), ids_of(mask[0][k]));
      all.insert(all.end(), rows.begin(), rows.end());
    }
    return all;
  }
};

TEST_P(Textbook, EncoderStates) {
  const ContextStates context = encode_chunks(model.adapter->encoder, chunks, mask).front();
  EXPECT_EQ(context.rows, 15);
  EXPECT_LE(distance(at::cat(context.pages, 0), tensor_of(states())), test::float_tolerance);
}

TEST_P(Textbook, LogitsWithContextByEveryPath) {
  const at::Tensor golden = tensor_of(textbook_logits(model, ids_of(ids), states()));
  for (const auto path : {CrossAttentionPath::projected, CrossAttentionPath::absorbed}) {
    const auto contexts = encode_chunks(model.adapter->encoder, chunks, mask);
    EXPECT_LE(distance(logits(model.decoder, forward(model, ids, contexts, path))[0], golden), test::float_tolerance);
  }
}

TEST_P(Textbook, LogitsWithoutContext) {
  const at::Tensor golden = tensor_of(textbook_logits(model, ids_of(ids), {}));
  EXPECT_LE(distance(logits(model.decoder, forward(model, ids, {ContextStates{}}))[0], golden), test::float_tolerance);
}

INSTANTIATE_TEST_SUITE_P(Seeds, Textbook, testing::Values(1, 2, 3));

}  // namespace
}  // namespace cepe::model
