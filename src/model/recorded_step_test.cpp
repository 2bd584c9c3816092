// Steps whose place lies in tensors give what steps by host numbers give. On the CPU, where nothing is recorded: the
// arithmetic and the tables are the same.
#include "model/recorded_step.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "golden_tensors.h"
#include "tiny_models.h"

namespace cepe::model {
namespace {

enum class Context { none, states, kept };

class RecordedSteps : public testing::TestWithParam<Context> {
 protected:
  static constexpr int64_t slots = 300, prompt = 254, steps = 6;  // over the border of two pages

  RecordedSteps() {
    if (GetParam() == Context::none) return;
    for (const int64_t rows : {8, 8, 3})
      context.append(forward(model.adapter->encoder, random.tokens({1, rows}, 96))[0]);
    if (GetParam() == Context::kept)
      keep_projections(context, cross_attention_blocks(model), head_shape(model.decoder.config), at::kFloat);
  }
  KvCache cache() const {
    const DecoderConfig& config = model.decoder.config;
    return make_kv_cache(config.layers, slots, config.groups, config.head_width, at::kFloat);
  }
  at::Tensor next(const at::Tensor& ids, int64_t cached, KvCache& kv) const {
    CrossAttentionInput cross;
    if (context.rows > 0) cross = {cross_attention_blocks(model), {&context}};
    const at::Tensor hidden = forward(model.decoder, single_layout(ids, cached), &kv, cross);
    return logits(model.decoder, hidden.narrow(0, hidden.size(0) - 1, 1));
  }

  const at::NoGradGuard no_gradients;
  test::TinyWeights random{7};
  CepeModel model = test::tiny_model(3);
  ContextStates context;
};

TEST_P(RecordedSteps, GiveTheLogitsOfAPassByHostNumbers) {
  const at::Tensor ids = random.tokens({prompt + steps}, 96);
  KvCache usual = cache(), recorded = cache();
  next(ids.narrow(0, 0, prompt), 0, usual);
  next(ids.narrow(0, 0, prompt), 0, recorded);
  RecordedStep step(model, recorded, &context);
  for (int64_t position = prompt; position < prompt + steps; ++position) {
    const at::Tensor token = ids.narrow(0, position, 1);
    EXPECT_LE(test::distance(step.logits(token, position), next(token, position, usual)), 1e-5) << position;
  }
}

TEST_P(RecordedSteps, APositionOutsideTheCacheIsRefused) {
  KvCache kv = cache();
  RecordedStep step(model, kv, &context);
  EXPECT_THROW(step.logits(random.tokens({1}, 96), slots), base::Error);
  EXPECT_THROW(step.logits(random.tokens({1}, 96), -1), base::Error);
}

INSTANTIATE_TEST_SUITE_P(Contexts, RecordedSteps, testing::Values(Context::none, Context::states, Context::kept));

}  // namespace
}  // namespace cepe::model
