// A tiny model, its store and requests that differ in everything, for tests of the engine.
#pragma once

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "context/context_store.h"
#include "engine/engine.h"
#include "letter_tokenizer.h"
#include "tiny_models.h"

namespace cepe::test {

struct EngineBench {
  const at::NoGradGuard none;
  model::CepeModel model;
  LetterTokenizer tokenizer;
  TinyWeights random{42};
  context::ContextStore store{*model.adapter, {}};

  explicit EngineBench(model::CepeModel made = tiny_model(41)) : model(std::move(made)) {}

  std::vector<text::Token> ids(int64_t count) {
    const at::Tensor drawn = random.tokens({count}, 96);
    return {drawn.const_data_ptr<int64_t>(), drawn.const_data_ptr<int64_t>() + count};
  }
  model::ContextStates states(const std::vector<text::Token>& tokens) {
    return store.get_or_encode(context::split(tokens, model.adapter->chunk_size, 0));
  }
  engine::Request request(int64_t prompt, int64_t tokens) {
    engine::Request request;
    request.prompt = ids(prompt);
    request.max_tokens = tokens;
    request.log_probabilities = 2;
    return request;
  }
  // Of unequal lengths, with contexts of their own, one that two share, and none; greedy and drawn.
  std::vector<engine::Request> requests(const engine::Engine& engine) {
    const std::vector<engine::ContextPointer> contexts = {nullptr, engine.prepare(states(ids(40))),
                                                          engine.prepare(states(ids(13)))};
    std::vector<engine::Request> list = {request(5, 20), request(70, 12), request(1, 25),
                                         request(33, 9), request(12, 16), request(20, 8)};
    for (size_t i = 0; i < list.size(); ++i) {
      list[i].context = contexts[i % 3];
      if (i % 2 == 1) list[i].sampling.temperature = 0.8, list[i].sampling.seed = i;
    }
    list[4].sampling.repetition_penalty = 1.3;
    list[5].context = contexts[1];
    return list;
  }
};

// Submits each after so many steps more than the one before and runs until all are done.
inline std::vector<engine::Completion> run_together(engine::Engine& engine, std::vector<engine::Request> requests,
                                                    int steps_between = 0) {
  std::vector<engine::Completion> found(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].on_finish = [&found, i](const engine::Completion& completion) { found[i] = completion; };
    engine.submit(std::move(requests[i]));
    for (int step = 0; step < steps_between; ++step) engine.step();
  }
  while (engine.step()) {
  }
  return found;
}

// Log-probabilities within `tolerance` as long as the tokens agree, and the first other token only where the two best
// were closer than that.
inline void expect_close(const engine::Completion& found, const engine::Completion& expected, double tolerance) {
  ASSERT_EQ(found.log_probabilities.size(), found.tokens.size());
  for (size_t t = 0; t < expected.tokens.size(); ++t) {
    ASSERT_LT(t, found.tokens.size());
    const auto &one = found.log_probabilities[t], &other = expected.log_probabilities[t];
    EXPECT_NEAR(one[1].log_probability, other[1].log_probability, tolerance) << t;
    if (found.tokens[t] != expected.tokens[t]) {
      EXPECT_LE(other[1].log_probability - other[2].log_probability, tolerance) << t;
      return;
    }
    EXPECT_NEAR(one[0].log_probability, other[0].log_probability, tolerance) << t;
  }
  EXPECT_EQ(found.tokens.size(), expected.tokens.size());
}

}  // namespace cepe::test
