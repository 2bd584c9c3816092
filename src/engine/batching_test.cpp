// Who else is in the batch changes nothing beyond rounding.
#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <tuple>

#include "engine/engine.h"
#include "engine_bench.h"
#include "expect_error.h"

namespace cepe::engine {
namespace {

using test::expect_close;
using test::run_together;

struct Batching : testing::Test, test::EngineBench {
  static EngineOptions options(int64_t prefill_rows = 16) {
    EngineOptions options;
    options.prefill_rows = prefill_rows;
    return options;
  }
  std::vector<Completion> alone(const std::vector<Request>& requests, const EngineOptions& settings) {
    std::vector<Completion> found;
    for (const Request& request : requests) {
      Engine engine(model, tokenizer, settings);
      found.push_back(engine.generate(request));
    }
    return found;
  }
  // Matrices in bfloat16, as a CPU loads them; activations too where asked for.
  void round_weights(at::ScalarType activations) {
    const auto round = [&](at::Tensor& weight) { weight = weight.to(weight.dim() == 2 ? at::kBFloat16 : activations); };
    model::visit(model.decoder, [&](const std::string&, at::Tensor& weight) { round(weight); });
    model::visit_parameters(*model.adapter, round);
    model.decoder.activation_type = model.adapter->encoder.activation_type = activations;
  }
};

TEST_F(Batching, InFloat32LogitsMoveByLessThanATenThousandth) {
  Engine engine(model, tokenizer, options());
  const std::vector<Request> requests = this->requests(engine);
  const std::vector<Completion> expected = alone(requests, options());
  for (const int between : {0, 1, 3}) {
    const std::vector<Completion> found = run_together(engine, requests, between);
    for (size_t i = 0; i < found.size(); ++i) {
      expect_close(found[i], expected[i], 1e-4);
      EXPECT_EQ(found[i].tokens, expected[i].tokens) << i;
      EXPECT_EQ(found[i].text, expected[i].text) << i;
    }
  }
  EXPECT_LT(engine.counters().steps, 150) << "they did not go together";
}

TEST_F(Batching, InBfloat16LogitsMoveByLessThanTwoHundredths) {
  for (const at::ScalarType activations : {at::kFloat, at::kBFloat16}) {
    round_weights(activations);
    Engine engine(model, tokenizer, options());
    std::vector<Request> requests = this->requests(engine);
    for (Request& request : requests) request.sampling.temperature = 0;
    const std::vector<Completion> expected = alone(requests, options()), found = run_together(engine, requests, 1);
    // Activations in bfloat16 are a GPU's; rounding them moves the logits of so small a model by as much again, by
    // which amount depends on the processor's products.
    const double tolerance = activations == at::kFloat ? 2e-2 : 4e-2;
    for (size_t i = 0; i < found.size(); ++i) expect_close(found[i], expected[i], tolerance);
  }
}

TEST_F(Batching, WithACacheIn8BitsToo) {
  EngineOptions settings = options();
  Engine whole(model, tokenizer, settings);
  std::vector<Request> requests = this->requests(whole);
  for (Request& request : requests) request.sampling.temperature = 0;
  const std::vector<Completion> exact = alone(requests, settings);
  settings.cache_type = CacheType::int8;
  Engine engine(model, tokenizer, settings);
  const std::vector<Completion> expected = alone(requests, settings), found = run_together(engine, requests, 1);
  for (size_t i = 0; i < found.size(); ++i) {
    expect_close(found[i], expected[i], 2e-2);
    expect_close(found[i], exact[i], 5e-2);
  }
}

TEST_F(Batching, BatchInvariantTheyAreTheSameBitForBit) {
  round_weights(at::kFloat);
  EngineOptions settings = options();
  settings.batch_invariant = true;
  settings.kept_bytes = int64_t{1} << 30;
  Engine engine(model, tokenizer, settings);
  std::vector<Request> requests = this->requests(engine);
  for (const int64_t prompt : {40, 50, 30}) requests.push_back(request(prompt, 60));  // a block each, then a second
  const std::vector<Completion> expected = alone(requests, settings);
  settings.cache_rows = 192;
  Engine crowded(model, tokenizer, settings);
  for (Engine* used : {&engine, &crowded}) {
    for (const int between : {0, 2}) {
      const std::vector<Completion> found = run_together(*used, requests, between);
      for (size_t i = 0; i < found.size(); ++i) {
        EXPECT_EQ(found[i].tokens, expected[i].tokens) << i;
        for (size_t t = 0; t < found[i].tokens.size(); ++t) {
          for (size_t k = 0; k < 3; ++k)
            EXPECT_EQ(found[i].log_probabilities[t][k].log_probability,
                      expected[i].log_probabilities[t][k].log_probability)
                << i << " " << t;
        }
      }
    }
  }
  EXPECT_GT(crowded.counters().preemptions, 0) << "also where blocks were lost in between";
}

TEST_F(Batching, ShortOfBlocksTheResultsAreTheSame) {
  EngineOptions settings = options();
  const std::vector<Request> requests = this->requests(Engine(model, tokenizer, settings));
  const std::vector<Completion> expected = alone(requests, settings);
  settings.cache_rows = 128;  // two blocks: the longest request needs both
  Engine engine(model, tokenizer, settings);
  const std::vector<Completion> found = run_together(engine, requests, 1);
  for (size_t i = 0; i < found.size(); ++i) expect_close(found[i], expected[i], 1e-4);

  // Three that begin together in a block each and cannot all have a second one.
  std::vector<Request> growing = {request(40, 60), request(50, 60), request(30, 60)};
  settings.cache_rows = 256;
  Engine crowded(model, tokenizer, settings);
  const std::vector<Completion> alone_too = alone(growing, settings), together = run_together(crowded, growing);
  for (size_t i = 0; i < growing.size(); ++i) expect_close(together[i], alone_too[i], 1e-4);
  EXPECT_GT(crowded.counters().preemptions, 0);
  const int64_t rows = 256;
  EXPECT_LE(crowded.counters().cache_bytes, rows * 3 * 2 * 2 * 8 * 4);
}

TEST_F(Batching, ARequestThatCanNeverFitIsRefusedWithTheFigures) {
  EngineOptions settings = options();
  settings.cache_rows = 128;
  Engine engine(model, tokenizer, settings);
  test::expect_error(base::ErrorCode::out_of_memory, "cache of 150 rows", [&] { engine.submit(request(100, 50)); });
  test::expect_error(base::ErrorCode::out_of_memory, "there are 128 in all", [&] { engine.submit(request(100, 50)); });
  EXPECT_EQ(engine.generate(request(100, 28)).tokens.size(), 28U);
}

TEST_F(Batching, ACancelledRequestIsGoneWithinOneStep) {
  Engine engine(model, tokenizer, options());
  std::vector<Finish> finishes;
  int tokens = 0;
  Request long_one = request(5, 400);
  long_one.on_step = [&](const Step&) { return ++tokens < 1000; };
  long_one.on_finish = [&](const Completion& completion) { finishes.push_back(completion.finish); };
  const RequestId id = engine.submit(long_one);
  long_one.prompt = ids(300);  // cancelled while it is being read
  const RequestId reading = engine.submit(long_one);
  for (int i = 0; i < 4; ++i) engine.step();
  const int before = tokens;
  EXPECT_TRUE(engine.cancel(id));
  EXPECT_TRUE(engine.cancel(reading));
  EXPECT_FALSE(engine.step());
  EXPECT_EQ(tokens, before);
  EXPECT_EQ(finishes, (std::vector<Finish>{Finish::cancelled, Finish::cancelled}));
  EXPECT_FALSE(engine.cancel(id));
}

TEST_F(Batching, ACallbackMayCancelOthersAndAskForMore) {
  Engine engine(model, tokenizer, options());
  std::vector<std::string> events;
  Request victim = request(6, 300);
  victim.on_finish = [&](const Completion& completion) {
    events.push_back("victim " + std::string(name_of(completion.finish)));
  };
  Request last = request(4, 2);
  last.on_finish = [&](const Completion&) { events.push_back("last"); };
  RequestId other = 0;
  Request first = request(3, 5);
  first.on_step = [&](const Step&) {
    engine.cancel(other);
    return true;
  };
  first.on_finish = [&](const Completion&) {
    events.push_back("first");
    engine.submit(last);
  };
  engine.submit(first);
  other = engine.submit(victim);
  while (engine.step()) {
  }
  EXPECT_EQ(events, (std::vector<std::string>{"victim cancelled", "first", "last"}));
}

TEST_F(Batching, AnExceptionOfACallbackEndsItsAnswerAndNoOther) {
  Engine engine(model, tokenizer, options());
  Request failing = request(6, 50), good = request(9, 12);
  failing.on_step = [](const Step&) -> bool { throw std::runtime_error("the reader is gone"); };
  Finish finish = Finish::length;
  failing.on_finish = [&](const Completion& completion) { finish = completion.finish; };
  const Completion expected = Engine(model, tokenizer, options()).generate(good);
  Completion found;
  good.on_finish = [&](const Completion& completion) { found = completion; };
  engine.submit(good);
  engine.submit(failing);
  EXPECT_THROW(while (engine.step()){}, std::runtime_error);
  EXPECT_EQ(finish, Finish::cancelled);
  while (engine.step()) {
  }
  EXPECT_EQ(found.tokens, expected.tokens);
}

TEST_F(Batching, WhatAnExceptionLeftBehindIsGone) {
  Engine engine(model, tokenizer, options());
  Request failing = request(6, 50);
  failing.on_step = [](const Step&) -> bool { throw std::runtime_error("the reader is gone"); };
  EXPECT_THROW(engine.generate(failing), std::runtime_error);
  EXPECT_FALSE(engine.step()) << "nothing is left of it";
  EXPECT_EQ(engine.generate(request(3, 4)).tokens.size(), 4U);
}

TEST_F(Batching, AHigherPriorityIsAnsweredFirst) {
  Engine engine(model, tokenizer, options());
  std::vector<int> order;
  const auto ask = [&](int name, int64_t priority) {
    Request one = request(100, 3);
    one.priority = priority;
    one.on_finish = [&order, name](const Completion&) { order.push_back(name); };
    engine.submit(std::move(one));
  };
  ask(0, 0);
  ask(1, 0);
  engine.step();
  ask(2, 5);
  while (engine.step()) {
  }
  ASSERT_EQ(order.size(), 3U);
  EXPECT_EQ(order.front(), 2);
}

TEST_F(Batching, SeveralAnswersShareThePromptAndAreWhatTheirSeedsGive) {
  Engine engine(model, tokenizer, options());
  for (const int64_t length : {40, 64, 100}) {
    Request several = request(length, 10);
    several.context = engine.prepare(states(ids(20)));
    several.sampling.temperature = 1;
    several.sampling.seed = 7;
    several.samples = 3;
    std::vector<int64_t> streamed(3);
    several.on_step = [&](const Step& step) {
      ++streamed.at(static_cast<size_t>(step.sample));
      return true;
    };
    const int64_t before = engine.counters().rows;
    const std::vector<Completion> found = engine.generate_samples(several);
    EXPECT_EQ(engine.counters().rows - before, length + int64_t{3} * 9) << "the prompt is read once";
    EXPECT_EQ(streamed, (std::vector<int64_t>{10, 10, 10}));
    for (size_t i = 0; i < 3; ++i) {
      Request one = several;
      one.on_step = nullptr;
      one.sampling.seed = 7 + i;
      expect_close(found[i], engine.generate(one), 1e-4);
      EXPECT_EQ(found[i].sample, static_cast<int64_t>(i));
    }
    EXPECT_NE(found[0].tokens, found[1].tokens);
  }
}

TEST_F(Batching, AnswersThatWaitForOthersShareThePromptToo) {
  for (const auto& [max_sequences, invariant, tables] : std::vector<std::tuple<int64_t, bool, bool>>{
           {64, false, false}, {3, false, false}, {3, true, false}, {3, false, true}, {3, true, true}}) {
    EngineOptions settings = options();
    settings.max_sequences = max_sequences;
    settings.batch_invariant = invariant;
    settings.steps_by_tables_on_cpu = tables;
    Engine engine(model, tokenizer, settings);
    for (const int64_t length : {40, 64}) {
      Request many = request(length, 5);
      many.context = engine.prepare(states(ids(20)));
      many.attribution = true;
      many.samples = 100;
      for (const double temperature : {0.0, 1.0}) {
        many.sampling.temperature = temperature;
        many.sampling.seed = 3;
        const int64_t before = engine.counters().rows;
        const std::vector<Completion> found = engine.generate_samples(many);
        EXPECT_EQ(engine.counters().rows - before, length + int64_t{100} * 4) << "the prompt is read once";
        for (const size_t i : {0, 3, 64, 99}) {
          Request one = many;
          one.sampling.seed = 3 + i;
          expect_close(found[i], engine.generate(one), 1e-4);
          EXPECT_EQ(found[i].sample, static_cast<int64_t>(i));
          EXPECT_EQ(found[i].page_masses.size(), 5U);
        }
      }
    }
    EXPECT_FALSE(engine.step()) << "nothing is left";
  }
}

TEST_F(Batching, AnswersThatWaitGiveTheirBlocksToThoseThatRun) {
  EngineOptions settings = options();
  settings.max_sequences = 2;
  Request several = request(60, 30), other = request(100, 20);
  several.sampling.temperature = 1;
  several.samples = 6;
  other.priority = 1;
  Engine roomy(model, tokenizer, settings);
  const std::vector<Completion> expected = roomy.generate_samples(several);
  for (const int64_t rows : {128, 192, 256}) {
    settings.cache_rows = rows;
    Engine engine(model, tokenizer, settings);
    std::vector<Completion> found(6);
    several.on_finish = [&](const Completion& one) { found.at(static_cast<size_t>(one.sample)) = one; };
    engine.submit(several);
    for (int step = 0; step < 8; ++step) engine.step();
    expect_close(engine.generate(other), roomy.generate(other), 1e-4);
    while (engine.step()) {
    }
    for (size_t i = 0; i < found.size(); ++i) expect_close(found[i], expected[i], 1e-4);
  }
}

TEST_F(Batching, CancelledTheAnswersThatWaitAreToldOfOnceEach) {
  EngineOptions settings = options();
  settings.max_sequences = 2;
  Engine engine(model, tokenizer, settings);
  Request several = request(60, 3);
  several.sampling.temperature = 1;
  several.samples = 9;
  std::vector<int> told(9);
  RequestId id = 0;
  several.on_finish = [&](const Completion& one) {
    if (++told.at(static_cast<size_t>(one.sample)); one.sample == 3) engine.cancel(id);
  };
  id = engine.submit(several);
  while (engine.step()) {
  }
  EXPECT_EQ(told, std::vector<int>(9, 1));
}

TEST_F(Batching, AnswersThatHadNotBegunAreToldOfWhateverAnOnFinishThrows) {
  Engine engine(model, tokenizer, options());
  Request several = request(60, 3);
  several.samples = 4;
  std::vector<int> told(4);
  several.on_finish = [&](const Completion& one) {
    ++told.at(static_cast<size_t>(one.sample));
    throw std::runtime_error("the reader is gone");
  };
  engine.cancel(engine.submit(several));
  EXPECT_THROW(engine.step(), std::runtime_error);
  EXPECT_FALSE(engine.step());
  EXPECT_EQ(told, std::vector<int>(4, 1));
}

TEST_F(Batching, SeveralAnswersFitWhereOneDoes) {
  EngineOptions settings = options();
  settings.cache_rows = 128;
  Engine engine(model, tokenizer, settings), roomy(model, tokenizer, options());
  Request several = request(70, 50);
  several.sampling.temperature = 1;
  several.samples = 4;
  const std::vector<Completion> found = engine.generate_samples(several), expected = roomy.generate_samples(several);
  for (size_t i = 0; i < 4; ++i) expect_close(found[i], expected[i], 1e-4);
}

// The peer of every figure: no adapter, everything in the decoder's own window.
TEST_F(Batching, FullAttentionOverLongPromptsGoesInTheSameBatch) {
  model.adapter.reset();
  model.decoder.config.max_positions = 2048;
  for (const auto scaling : {model::RopeScaling::linear, model::RopeScaling::yarn}) {
    model.decoder.config.rope.scaling = scaling;
    model.decoder.config.rope.factor = 4;
    model.decoder.config.rope.original_positions = 512;
    const std::vector<Request> requests = {request(1500, 12), request(3, 40), request(700, 20)};
    const std::vector<Completion> expected = alone(requests, options(256));
    Engine engine(model, tokenizer, options(256));
    const std::vector<Completion> found = run_together(engine, requests, 1);
    for (size_t i = 0; i < found.size(); ++i) expect_close(found[i], expected[i], 1e-4);
  }
}

}  // namespace
}  // namespace cepe::engine
