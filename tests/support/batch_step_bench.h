// Steps by tables against passes by host numbers, for the CPU and for a GPU, where the steps are recorded.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "golden_tensors.h"
#include "model/batch_step.h"
#include "tiny_models.h"

namespace cepe::test {

struct BatchStepBench {
  static constexpr int64_t block_rows = 4, blocks = 60, steps = 6, padding = (blocks - 1) * block_rows;

  explicit BatchStepBench(at::TensorOptions options = at::kFloat, double close = 1e-5, const TinyShape& shape = {})
      : values(options), tolerance(close), model(with_values(tiny_model(3, shape), options)) {}

  struct Text {
    std::vector<int32_t> ids, blocks;
    int64_t prompt;
    const model::ContextStates* context;
  };

  model::KvCache cache() const {
    const model::DecoderConfig& config = model.decoder.config;
    return model::make_kv_cache(config.layers, blocks * block_rows, config.groups, config.head_width, values);
  }
  model::ContextStates states(const std::vector<int64_t>& pages) {
    model::ContextStates made;
    for (const int64_t rows : pages)
      made.append(model::forward(model.adapter->encoder, random.tokens({1, rows}, 96).to(values.device()))[0]);
    return made;
  }
  model::ContextStates kept(model::ContextStates context) {
    model::keep_projections(context, model::cross_attention_blocks(model), model::head_shape(model.decoder.config),
                            values.dtype().toScalarType());
    return context;
  }
  // `prompt` ids and `steps` more, in every `apart`th block from `first` on.
  Text text(int64_t prompt, int32_t first, int32_t apart, const model::ContextStates* context) {
    Text made = {{}, {}, prompt, context};
    const at::Tensor drawn = random.tokens({prompt + steps}, 96);
    for (int64_t i = 0; i < drawn.size(0); ++i) made.ids.push_back(static_cast<int32_t>(drawn[i].item<int64_t>()));
    for (int64_t row = 0; row < prompt + steps; row += block_rows)
      made.blocks.push_back(first + apart * static_cast<int32_t>(row / block_rows));
    return made;
  }
  // The logits of ids [cached, end) by host numbers: of the last one.
  at::Tensor usual(const Text& text, int64_t cached, int64_t end, model::KvCache& kv,
                   model::ContextMass* mass = nullptr) const {
    model::CrossAttentionInput cross;
    if (text.context) cross = {model::cross_attention_blocks(model), {text.context}};
    cross.masses = {mass};
    const std::span ids(text.ids);
    const std::vector<model::PagedPiece> piece = {
        {ids.subspan(static_cast<size_t>(cached), static_cast<size_t>(end - cached)), cached, text.blocks}};
    const at::Tensor hidden =
        model::forward(model.decoder, model::paged_layout(piece, block_rows, values.device()), &kv, cross);
    return model::logits(model.decoder, hidden.narrow(0, hidden.size(0) - 1, 1));
  }
  static std::vector<model::BatchStep::Row> rows_at(const std::vector<Text>& texts, int64_t step) {
    std::vector<model::BatchStep::Row> rows;
    for (const Text& text : texts) rows.push_back({text.prompt + step, text.blocks, text.context});
    return rows;
  }

  // Steps of all texts together against each by itself.
  void expect_the_same(const std::vector<Text>& texts) {
    model::KvCache alone = cache(), together = cache();
    for (const Text& text : texts) {
      usual(text, 0, text.prompt, alone);
      usual(text, 0, text.prompt, together);
    }
    ASSERT_TRUE(model::BatchStep::takes(model, together));
    model::BatchStep step(model, together, block_rows, padding);
    for (int64_t i = 0; i < steps; ++i) {
      std::vector<at::Tensor> tokens;
      for (const Text& text : texts)
        tokens.push_back(at::full({1}, text.ids[static_cast<size_t>(text.prompt + i)], at::kLong));
      const at::Tensor found = step.logits(at::cat(tokens), rows_at(texts, i));
      ASSERT_EQ(found.size(0), static_cast<int64_t>(texts.size()));
      for (size_t t = 0; t < texts.size(); ++t) {
        const int64_t at = texts[t].prompt + i;
        EXPECT_LE(distance(found.narrow(0, static_cast<int64_t>(t), 1).to(at::kCPU),
                           usual(texts[t], at, at + 1, alone).to(at::kCPU)),
                  tolerance)
            << "text " << t << ", step " << i;
      }
    }
  }

  // Whole prompts as rows of a step, which a GPU records the ninth time, against each by itself.
  void expect_the_same_prompts(const std::vector<Text>& texts) {
    model::KvCache alone = cache(), together = cache();
    model::BatchStep step(model, together, block_rows, padding);
    std::vector<model::BatchStep::Row> rows;
    std::vector<int32_t> ids;
    std::vector<at::Tensor> expected;
    for (const Text& text : texts) {
      for (int64_t row = 0; row < text.prompt; ++row) {
        rows.push_back({row, text.blocks, text.context});
        ids.push_back(text.ids[static_cast<size_t>(row)]);
      }
      expected.push_back(usual(text, 0, text.prompt, alone).to(at::kCPU));
    }
    for (int turn = 0; turn < 10; ++turn) {
      const at::Tensor found = step.logits(at::tensor(ids, at::kLong), rows).to(at::kCPU);
      int64_t end = 0;
      for (size_t t = 0; t < texts.size(); ++t) {
        end += texts[t].prompt;
        EXPECT_LE(distance(found.narrow(0, end - 1, 1), expected[t]), tolerance)
            << "prompt of " << texts[t].prompt << ", turn " << turn;
      }
    }
    EXPECT_EQ(step.sizes(), 1);
  }

  // Two steps of all texts together, of which those before `asking` ask, against each by itself: shares of pages.
  void expect_the_same_masses(const std::vector<Text>& texts, size_t asking) {
    model::KvCache alone = cache(), together = cache();
    for (const Text& text : texts) {
      usual(text, 0, text.prompt, alone);
      usual(text, 0, text.prompt, together);
    }
    model::BatchStep step(model, together, block_rows, padding);
    for (int64_t i = 0; i < 2; ++i) {
      std::vector<at::Tensor> tokens, expected;
      std::vector<model::BatchStep::Row> rows = rows_at(texts, i);
      for (size_t t = 0; t < texts.size(); ++t) {
        const int64_t at = texts[t].prompt + i;
        tokens.push_back(at::full({1}, texts[t].ids[static_cast<size_t>(at)], at::kLong));
        model::ContextMass mass;
        usual(texts[t], at, at + 1, alone, &mass);
        rows[t].asks_masses = t < asking;
        if (t < asking && mass.layers > 0) expected.push_back(mass.sum / static_cast<double>(mass.layers));
      }
      step.logits(at::cat(tokens), rows);
      ASSERT_EQ(step.page_masses().defined(), !expected.empty());
      if (expected.empty()) continue;
      EXPECT_LE(distance(step.page_masses(), at::cat(expected)), tolerance) << "step " << i;
    }
  }

  const at::NoGradGuard none;
  at::TensorOptions values;
  double tolerance;
  model::CepeModel model;
  TinyWeights random{7};
};

}  // namespace cepe::test
