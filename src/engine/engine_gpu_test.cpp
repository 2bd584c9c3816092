// The engine on a GPU, where decoding goes by recorded steps: batches, contexts that become hot, windows that slide.
// On a CPU (CEPE_GPU=cpu) the same bodies go by tables that are not recorded, but for passes over K and V that are
// kept: there these lie in 8 bits or side by side, where no table reaches them.
#include <numeric>
#include <random>

#include "engine/engine.h"
#include "engine_bench.h"
#include "gpu.h"
#include "ops/int8_rows.h"

namespace cepe::engine {
namespace {

using test::expect_close;
using test::run_together;

// Rounding to bfloat16 moves the logits of so small a model by that much (batching_test.cpp).
constexpr double tolerance = 4e-2;
// And that much where several thousand of them are compared: the CPU's kernels differ by 0.046.
constexpr double crowd_tolerance = 6e-2;

// Widths that the kernels take, and an encoder whose states are cheaper to read than K and V.
test::TinyShape shape_with_encoder(int64_t width) {
  test::TinyShape shape;
  shape.width = 128, shape.head_width = 64;
  shape.encoder_width = width, shape.encoder_heads = width / 32, shape.encoder_groups = width / 64;
  shape.encoder_head_width = 32;
  return shape;
}

class EngineOnGpu : public test::OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (test::gpu().device) make_bench(128);
  }
  void make_bench(int64_t encoder_width) {
    const at::TensorOptions values = at::TensorOptions(device()).dtype(at::kBFloat16);
    bench_.emplace(test::with_values(test::tiny_model(41, shape_with_encoder(encoder_width)), values));
  }
  test::EngineBench& bench() { return *bench_; }
  Engine engine(const EngineOptions& options) { return {bench().model, bench().tokenizer, options}; }

  static EngineOptions options(int64_t kept_bytes = 0) {
    EngineOptions options;
    options.prefill_rows = 16;
    options.kept_bytes = kept_bytes;
    options.steps_by_tables_on_cpu = true;
    return options;
  }
  std::vector<Request> greedy_requests(const Engine& engine) {
    std::vector<Request> requests = bench().requests(engine);
    for (Request& request : requests) request.sampling.temperature = 0;
    return requests;
  }
  Request question(const ContextPointer& context, int64_t prompt, int64_t tokens) {
    Request asked = bench().request(prompt, tokens);
    asked.context = context;
    return asked;
  }
  std::vector<Completion> alone(const std::vector<Request>& requests, const EngineOptions& settings) {
    std::vector<Completion> found;
    found.reserve(requests.size());
    for (const Request& request : requests) found.push_back(engine(settings).generate(request));
    return found;
  }
  static void expect_all_close(const std::vector<Completion>& found, const std::vector<Completion>& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      SCOPED_TRACE(i);
      expect_close(found[i], expected[i], tolerance);
    }
  }

 private:
  std::optional<test::EngineBench> bench_;
};

TEST_F(EngineOnGpu, AnswersTogetherAreThoseAlone) {
  for (const int64_t kept_bytes : {int64_t{0}, int64_t{1} << 30}) {
    Engine used = engine(options(kept_bytes));
    const std::vector<Request> requests = greedy_requests(used);
    expect_all_close(run_together(used, requests, 1), alone(requests, options(kept_bytes)));
    EXPECT_GT(used.counters().steps_by_tables, kept_bytes > 0 && device().is_cpu() ? 10 : 20);
  }
}

TEST_F(EngineOnGpu, BatchInvariantTheyAreTheSameBitForBit) {
  EngineOptions settings = options();
  settings.batch_invariant = true;
  Engine used = engine(settings);
  std::vector<Request> requests = bench().requests(used);
  for (const int64_t prompt : {40, 49, 30}) requests.push_back(bench().request(prompt, 60));
  const std::vector<Completion> expected = alone(requests, settings);
  settings.cache_rows = 256;  // and a block of padding
  Engine crowded = engine(settings);
  for (Engine* one : {&used, &crowded}) {
    const std::vector<Completion> found = run_together(*one, requests, 2);
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i].tokens, expected[i].tokens) << i;
      for (size_t t = 0; t < found[i].tokens.size(); ++t)
        for (size_t k = 0; k < 3; ++k)
          EXPECT_EQ(found[i].log_probabilities[t][k].log_probability,
                    expected[i].log_probabilities[t][k].log_probability)
              << i << " " << t;
    }
  }
  EXPECT_GT(crowded.counters().preemptions, 0) << "also where blocks were lost in between";
}

// Questions one after the other, then together: K and V are made between two of them, or while answers are under way.
TEST_F(EngineOnGpu, AContextThatBecomesHotAnswersTheSame) {
  for (const bool together : {false, true}) {
    const auto context = std::make_shared<const model::ContextStates>(bench().states(bench().ids(200)));
    std::vector<Request> requests;
    for (int64_t i = 0; i < 8; ++i) requests.push_back(question(context, 70 + i, 12));
    EngineOptions settings = options();
    settings.prefill_rows = 128;
    const std::vector<Completion> expected = alone(requests, settings);
    settings.kept_bytes = int64_t{1} << 30;
    Engine used = engine(settings);
    std::vector<Completion> found;
    if (together) {
      found = run_together(used, requests, 2);
    } else {
      for (const Request& request : requests) found.push_back(used.generate(request));
    }
    expect_all_close(found, expected);
    EXPECT_EQ(used.counters().hot_contexts, 1);
    EXPECT_GT(used.counters().steps_by_tables, device().is_cpu() ? 0 : 20) << "on a CPU until it is hot";
  }
}

TEST_F(EngineOnGpu, ShortOfBlocksTheAnswersAreTheSame) {
  const std::vector<Request> requests = {bench().request(40, 60), bench().request(50, 60), bench().request(30, 60)};
  EngineOptions settings = options();
  const std::vector<Completion> expected = alone(requests, settings);
  settings.cache_rows = 256;
  Engine crowded = engine(settings);
  expect_all_close(run_together(crowded, requests, 1), expected);
  EXPECT_GT(crowded.counters().preemptions, 0);
}

TEST_F(EngineOnGpu, ACacheIn8BitsAnswersAlike) {
  EngineOptions settings = options();
  Engine whole = engine(settings);
  const std::vector<Request> requests = greedy_requests(whole);
  const std::vector<Completion> exact = alone(requests, settings);
  settings.cache_type = CacheType::int8;
  Engine used = engine(settings);
  const std::vector<Completion> expected = alone(requests, settings), found = run_together(used, requests, 1);
  expect_all_close(found, expected);
  EXPECT_GT(used.counters().steps_by_tables, 10);
  run_together(whole, requests, 1);
  EXPECT_LT(used.counters().cache_bytes, whole.counters().cache_bytes * 6 / 10) << "half, and the scales";
  for (size_t i = 0; i < found.size(); ++i) {
    SCOPED_TRACE(i);
    expect_close(found[i], exact[i], 8e-2);
  }
  const std::vector<Request> few = {bench().request(40, 60), bench().request(50, 60), bench().request(30, 60)};
  const std::vector<Completion> unhindered = alone(few, settings);
  settings.cache_rows = 256;
  Engine crowded = engine(settings);
  expect_all_close(run_together(crowded, few, 1), unhindered);
  EXPECT_GT(crowded.counters().preemptions, 0);
}

TEST_F(EngineOnGpu, SeveralAnswersReadThePromptOnce) {
  Engine used = engine(options());
  Request several = question(used.prepare(bench().states(bench().ids(40))), 30, 10);
  several.sampling.temperature = 1;
  several.samples = 3;
  const int64_t before = used.counters().rows;
  const std::vector<Completion> found = used.generate_samples(several);
  EXPECT_EQ(used.counters().rows - before, 30 + 3 * 9);
  several.samples = 1;
  const Completion one = used.generate(several);
  EXPECT_EQ(one.log_probabilities.size(), 10U);
  for (const Completion& answer : found) {
    EXPECT_NEAR(answer.log_probabilities[0][1].log_probability, one.log_probabilities[0][1].log_probability, tolerance);
  }
  EXPECT_NE(found[0].tokens, found[1].tokens);
}

TEST_F(EngineOnGpu, WindowsSlideBesideOthers) {
  bench().model.decoder.config.max_positions = 40;
  std::vector<Request> requests = {bench().request(10, 90), bench().request(35, 40), bench().request(4, 20)};
  requests[0].endless = {&bench().store, 1, 0};
  requests[1].endless = {&bench().store, 0, 0};
  Engine used = engine(options());
  const std::vector<Completion> found = run_together(used, requests, 2);
  expect_all_close(found, alone(requests, options()));
  EXPECT_EQ(found[0].tokens.size(), 90U);
}

TEST_F(EngineOnGpu, AttributionSumsToOneAndIsTheSameKeptAndNot) {
  const model::ContextStates context = bench().states(bench().ids(29));  // 4 pages
  std::vector<std::vector<float>> first;
  Request asked = bench().request(10, 25);
  asked.attribution = true;
  for (const int64_t kept_bytes : {int64_t{0}, int64_t{1} << 30}) {
    Engine used = engine(options(kept_bytes));
    used.set_context(context);
    const Completion found = run_together(used, {bench().request(3, 20), asked}, 1)[1];
    ASSERT_EQ(found.page_masses.size(), 25U);
    for (const auto& masses : found.page_masses) {
      ASSERT_EQ(masses.size(), 4U);
      EXPECT_NEAR(std::accumulate(masses.begin(), masses.end(), 0.0), 1, 1e-2);
    }
    if (first.empty()) first = found.page_masses;
    for (size_t page = 0; page < 4; ++page) EXPECT_NEAR(found.page_masses[0][page], first[0][page], 1e-2);
  }
}

// Whatever comes together: contexts of all kinds, shared and not, attribution, windows that slide, priorities, too few
// blocks, and requests that are cancelled in between.
TEST_F(EngineOnGpu, CrowdsOfAllKindsEndAsTheyWouldAlone) {
  bench().model.decoder.config.max_positions = 128;
  EngineOptions settings = options(int64_t{1} << 30);
  settings.max_sequences = 12;
  settings.cache_rows = 512;
  settings.prefill_rows = 96;
  std::mt19937 random(5);
  const auto up_to = [&](int64_t most) { return static_cast<int64_t>(random() % static_cast<uint64_t>(most + 1)); };
  for (int turn = 0; turn < 3; ++turn) {
    Engine crowded = engine(settings);
    std::vector<ContextPointer> contexts = {nullptr};
    for (const int64_t tokens : {1, 30, 200})
      contexts.push_back(std::make_shared<const model::ContextStates>(bench().states(bench().ids(tokens))));
    contexts.push_back(crowded.prepare(bench().states(bench().ids(90))));  // K and V may be kept from the start
    std::vector<Request> requests;
    for (int i = 0; i < 40; ++i) {
      Request asked = question(contexts[static_cast<size_t>(up_to(4))], 1 + up_to(80), 1 + up_to(40));
      asked.attribution = asked.context && up_to(3) == 0;
      asked.priority = up_to(2);
      if (up_to(5) == 0) asked.endless = {&bench().store, 1, 40}, asked.max_tokens = 60;
      requests.push_back(std::move(asked));
    }
    std::vector<Completion> found(requests.size());
    std::vector<RequestId> ids;
    for (size_t i = 0; i < requests.size(); ++i) {
      Request asked = requests[i];
      asked.on_finish = [&found, i](const Completion& completion) { found[i] = completion; };
      ids.push_back(crowded.submit(std::move(asked)));
      for (int64_t steps = up_to(6); steps > 0; --steps) crowded.step();
      if (up_to(7) == 0) crowded.cancel(ids[static_cast<size_t>(up_to(static_cast<int64_t>(i)))]);
    }
    while (crowded.step()) {
    }
    EXPECT_GT(crowded.counters().steps_by_tables, 100);
    EXPECT_GT(crowded.counters().preemptions, 0);
    settings.kept_bytes = turn % 2 == 0 ? 0 : int64_t{1} << 30;
    for (size_t i = 0; i < requests.size(); ++i) {
      SCOPED_TRACE(i);
      EXPECT_EQ(found[i].page_masses.size(), requests[i].attribution ? found[i].tokens.size() : 0);
      if (found[i].finish == Finish::cancelled) continue;
      const Completion expected = engine(settings).generate(requests[i]);
      EXPECT_EQ(found[i].tokens.size(), expected.tokens.size());
      expect_close(found[i], expected, crowd_tolerance);
    }
  }
}

TEST_F(EngineOnGpu, StatesIn8BitsAnswerAlike) {
  if (!device().is_cpu() && !ops::takes_int8_pages(512, device())) GTEST_SKIP() << "no kernel for packed rows here";
  make_bench(512);
  const model::ContextStates wide = bench().states(bench().ids(120));
  model::ContextStates packed;
  for (const at::Tensor& page : wide.pages) packed.append(ops::int8_rows(page));
  Engine used = engine(options());
  Request asked = bench().request(20, 16);
  asked.context = used.prepare(wide);
  const Completion expected = used.generate(asked);
  asked.context = used.prepare(packed);
  const int64_t before = used.counters().steps_by_tables;
  expect_close(used.generate(asked), expected, 6e-2);
  EXPECT_GE(used.counters().steps_by_tables - before, 15);
}

// A step does not take both kinds of states: their sequences go one by one, through the same recordings.
TEST_F(EngineOnGpu, StatesIn8BitsBesideOthersAnswerAsAlone) {
  if (!device().is_cpu() && !ops::takes_int8_pages(512, device())) GTEST_SKIP() << "no kernel for packed rows here";
  make_bench(512);
  Engine used = engine(options());
  std::vector<Request> requests;
  for (int64_t i = 0; i < 6; ++i) {
    model::ContextStates states = bench().states(bench().ids(60 + 10 * i)), packed;
    for (const at::Tensor& page : states.pages) packed.append(ops::int8_rows(page));
    requests.push_back(question(used.prepare(std::move(i % 2 == 0 ? packed : states)), 20, 16));
    requests.back().sampling.temperature = 0;
  }
  const std::vector<Completion> expected = alone(requests, options());
  expect_all_close(run_together(used, requests, 0), expected);
}

}  // namespace
}  // namespace cepe::engine
