// Whatever small engines are asked at one time: each answer is the one that it would be alone, told once, and nothing
// is left of any.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine_bench.h"
#include "temporary_folder.h"

namespace cepe::test {

using engine::block_rows, engine::Completion, engine::ContextPointer, engine::Engine, engine::EngineCounters,
    engine::EngineOptions, engine::Finish, engine::Request, engine::RequestId, engine::Sampling, engine::Step;

struct SoakSettings {
  int64_t cached_row_bytes = int64_t{3} * 2 * 2 * 8 * 4;  // of the decoder's own cache, all layers
  bool pads_tables = false;                               // whatever `steps_by_tables_on_cpu` says
  double tolerance = 1e-4;                                // of log-probabilities beside the same request alone
  int64_t answers_that_part = 2;  // drawn, where two tokens' shares meet, or greedy, where the two best do
};

struct Soak : EngineBench {
  // A request, and what came of its answers.
  struct Asked {
    Request request;
    std::vector<Completion> found;
    std::vector<int64_t> told, streamed;  // how often, how many tokens
    std::vector<std::string> texts;
    RequestId id = 0;
  };

  SoakSettings settings;
  std::mt19937 random_numbers;
  TemporaryFolder folder;
  std::unique_ptr<context::ContextStore> small_store;  // room for a few chunks
  EngineOptions options;
  std::unique_ptr<Engine> engine;
  std::vector<std::vector<text::Token>> documents;
  std::vector<ContextPointer> contexts;
  std::vector<std::unique_ptr<Asked>> asked;
  EngineCounters sum;
  int64_t answers = 0, cancelled = 0, thrown = 0, parted = 0;

  Soak() = default;
  Soak(model::CepeModel made, const SoakSettings& chosen) : EngineBench(std::move(made)), settings(chosen) {}

  int64_t up_to(int64_t most) { return static_cast<int64_t>(random_numbers() % static_cast<uint64_t>(most + 1)); }
  bool one_in(int64_t many) { return up_to(many - 1) == 0; }
  template <class Value>
  Value one_of(std::initializer_list<Value> values) {
    return *(values.begin() + up_to(static_cast<int64_t>(values.size()) - 1));
  }
  template <class Value>
  Value& one_of(std::vector<Value>& values) {
    return values[static_cast<size_t>(up_to(static_cast<int64_t>(values.size()) - 1))];
  }

  void begin(uint32_t seed) {
    random_numbers.seed(seed);
    model.decoder.config.max_positions = one_of({96, 128, 160});
    context::StoreOptions stored;
    if (one_in(2)) stored.folder = folder.path() / std::to_string(seed);
    stored.max_bytes = int64_t{1} << 16;
    stored.host_bytes = one_of({0, 4096});
    small_store = std::make_unique<context::ContextStore>(*model.adapter, stored);
    options = {};
    options.max_sequences = 1 + up_to(7);
    options.prefill_rows = one_of({5, 16, 64});
    options.cache_rows = one_of({128, 192, 256});
    options.batch_invariant = seed % 2 == 0;
    options.steps_by_tables_on_cpu = seed / 2 % 2 == 1;
    options.kept_bytes =
        options.batch_invariant ? one_of({-1, 0}) : one_of({0, 52, 104, 1 << 20}) * settings.cached_row_bytes;
    engine = std::make_unique<Engine>(model, tokenizer, options);
    documents.clear();
    for (int i = 0; i < 4; ++i) documents.push_back(ids(1 + up_to(120)));
  }

  model::ContextStates drawn_states() {
    std::vector<context::Chunk> chunks;
    for (int64_t left = one_of({1, 2}); left > 0; --left) {
      const int64_t document = up_to(3);
      for (context::Chunk& chunk :
           context::split(documents[static_cast<size_t>(document)], model.adapter->chunk_size, document))
        chunks.push_back(std::move(chunk));
    }
    return small_store->get_or_encode(chunks);
  }
  void change_contexts() {
    if (one_in(12)) engine->set_context(drawn_states());
    if (!contexts.empty() && !one_in(8)) return;
    // One that was not prepared has no K and V before it is hot.
    contexts.push_back(one_in(3) ? std::make_shared<const model::ContextStates>(drawn_states())
                                 : engine->prepare(drawn_states()));
    if (contexts.size() > 3) contexts.erase(contexts.begin());
  }

  Sampling drawn_sampling() {
    Sampling drawn;
    drawn.seed = static_cast<uint64_t>(up_to(1000));
    if (one_in(2)) drawn.temperature = one_of({0.5, 1.0, 3.0});
    if (one_in(4)) drawn.top_k = 1 + up_to(20);
    if (one_in(4)) drawn.top_p = 0.7;
    if (one_in(4)) drawn.min_p = 0.05;
    if (one_in(4)) drawn.repetition_penalty = 1.3;
    if (one_in(5)) drawn.presence_penalty = 0.5;
    if (one_in(5)) drawn.frequency_penalty = 0.4;
    for (text::Token token = 0; one_in(4) && token < 20; ++token)
      drawn.logit_bias.emplace_back(token, one_in(2) ? -std::numeric_limits<double>::infinity() : 1.5);
    return drawn;
  }
  Request drawn_request() {
    Request drawn = request(1 + up_to(one_of({3, 30, 80})), up_to(40));
    if (!one_in(5)) drawn.context = one_of(contexts);
    drawn.sampling = drawn_sampling();
    drawn.priority = one_of({0, 0, 0, 1, 2});
    drawn.attribution = one_in(4);
    if (one_in(3)) drawn.samples = 1 + up_to(5);
    if (one_in(3)) drawn.stop = {std::string(1, static_cast<char>(' ' + up_to(94))), "ab"};
    if (one_in(4)) drawn.end_tokens = {static_cast<text::Token>(up_to(95)), static_cast<text::Token>(up_to(95))};
    if (one_in(4)) drawn.endless = {small_store.get(), up_to(2), one_of({0, 24, 40})};
    if (drawn.endless.store && one_in(2)) drawn.max_tokens += 90;
    return drawn;
  }

  // What is heard of it goes to `its`; now and then its callbacks throw, cancel another, or ask for more.
  Request with_callbacks(Asked& its) {
    Request given = its.request;
    const int64_t throws_at = one_in(25) ? 4 : 0, cancels_at = one_in(15) ? 1 + up_to(10) : 0,
                  more = one_in(15) ? 1 : 0;
    given.on_step = [this, &its, throws_at, cancels_at](const Step& step) {
      const auto sample = static_cast<size_t>(step.sample);
      const int64_t token = ++its.streamed[sample];
      its.texts[sample] += step.text;
      if (token == cancels_at) engine->cancel(one_of(asked)->id);
      if (token == throws_at) throw std::runtime_error("planned");
      return true;
    };
    given.on_finish = [this, &its, more](const Completion& completion) {
      const auto sample = static_cast<size_t>(completion.sample);
      its.found.at(sample) = completion;
      if (++its.told.at(sample) == more) ask();
    };
    return given;
  }
  void ask() {
    asked.push_back(std::make_unique<Asked>());
    Asked& its = *asked.back();
    its.request = drawn_request();
    const auto samples = static_cast<size_t>(its.request.samples);
    its.found.resize(samples), its.told.resize(samples), its.streamed.resize(samples), its.texts.resize(samples);
    try {
      its.id = engine->submit(with_callbacks(its));
      if (!its.request.context) its.request.context = std::make_shared<const model::ContextStates>(engine->context());
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::ErrorCode::out_of_memory) << error.what();  // a cache of few rows
      asked.pop_back();
    }
  }
  bool step() {
    bool more = true;
    try {
      more = engine->step();
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "planned");
      ++thrown;
    }
    const EngineCounters counters = engine->counters();
    const int64_t padding = options.steps_by_tables_on_cpu || settings.pads_tables ? block_rows : 0;
    EXPECT_LE(counters.cache_bytes, (options.cache_rows + padding) * settings.cached_row_bytes);
    if (options.kept_bytes > 0) {
      EXPECT_LE(counters.kept_bytes, options.kept_bytes);
    }
    return more;
  }
  void ask_and_step() {
    for (int turn = 0; turn < 50; ++turn) {
      change_contexts();
      ask();
      if (one_in(6) && !asked.empty()) engine->cancel(one_of(asked)->id);
      for (int64_t left = up_to(8); left > 0; --left) step();
    }
    while (step()) {
    }
  }

  Completion alone(const Asked& one, size_t sample) {
    EngineOptions roomy = options;
    roomy.cache_rows = 0;
    Request again = one.request;
    again.samples = 1;
    again.sampling.seed += sample;
    return Engine(model, tokenizer, roomy).generate(again);
  }
  // Where rounding decides.
  bool may_part(const Request& request, const Completion& found, const Completion& expected) const {
    if (options.batch_invariant) return false;
    const Sampling& sampling = request.sampling;
    if (sampling.temperature > 0) return true;
    const auto differs =
        std::mismatch(found.tokens.begin(), found.tokens.end(), expected.tokens.begin(), expected.tokens.end());
    const auto t = static_cast<size_t>(differs.second - expected.tokens.begin());
    if (t >= expected.log_probabilities.size()) return false;
    // What is told is not what penalties made of it.
    const bool plain = sampling.repetition_penalty == 1 && sampling.presence_penalty == 0 &&
                       sampling.frequency_penalty == 0 && sampling.logit_bias.empty();
    const auto& best = expected.log_probabilities[t];
    return settings.tolerance > 1e-3 &&
           (!plain || best[1].log_probability - best[2].log_probability <= settings.tolerance);
  }
  void expect_alone(const Asked& one, size_t sample) {
    const Completion& found = one.found[sample];
    Completion expected = alone(one, sample);
    EXPECT_EQ(one.told[sample], 1);
    EXPECT_EQ(one.streamed[sample], static_cast<int64_t>(found.tokens.size()));
    EXPECT_EQ(one.texts[sample], found.text);
    EXPECT_EQ(found.page_masses.size(), one.request.attribution ? found.tokens.size() : 0);
    if (found.finish == Finish::cancelled) {
      expected.tokens.resize(std::min(expected.tokens.size(), found.tokens.size()));
    } else if (found.tokens == expected.tokens) {
      EXPECT_EQ(found.finish, expected.finish);
      EXPECT_EQ(found.text, expected.text);
    }
    if (found.tokens != expected.tokens && may_part(one.request, found, expected)) {
      ++parted;
      return;
    }
    EXPECT_EQ(found.tokens, expected.tokens);
    const double tolerance = options.batch_invariant ? 0 : settings.tolerance;
    for (size_t t = 0; t < std::min(found.tokens.size(), expected.tokens.size()); ++t) {
      for (size_t k = 0; k < 3; ++k)
        ASSERT_NEAR(found.log_probabilities[t][k].log_probability, expected.log_probabilities[t][k].log_probability,
                    tolerance);
      if (!one.request.attribution) continue;
      ASSERT_EQ(found.page_masses[t].size(), expected.page_masses[t].size());
      for (size_t page = 0; page < found.page_masses[t].size(); ++page)
        ASSERT_NEAR(found.page_masses[t][page], expected.page_masses[t][page], std::max(tolerance, 1e-4));
    }
  }
  void expect_all_alone() {
    for (size_t i = 0; i < asked.size(); ++i) {
      for (size_t sample = 0; sample < asked[i]->found.size(); ++sample) {
        SCOPED_TRACE("request " + std::to_string(i) + ", answer " + std::to_string(sample));
        expect_alone(*asked[i], sample);
        ++answers;
        cancelled += asked[i]->found[sample].finish == Finish::cancelled ? 1 : 0;
      }
    }
  }

  // Of one seed.
  void run(uint32_t seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    begin(seed);
    ask_and_step();
    const EngineCounters counters = engine->counters();
    sum.steps += counters.steps, sum.steps_by_tables += counters.steps_by_tables;
    sum.preemptions += counters.preemptions, sum.hot_contexts += counters.hot_contexts;
    expect_all_alone();
    expect_nothing_left();
    EXPECT_LE(parted, settings.answers_that_part);
  }

  // After some seeds: what is meant to be met was.
  void expect_everything_was_met() const {
    EXPECT_GT(answers, 300);
    EXPECT_GT(cancelled, 30);
    EXPECT_GT(thrown, 3);
    EXPECT_GT(sum.steps_by_tables, 1000);
    EXPECT_GT(sum.preemptions, 10);
    EXPECT_GT(sum.hot_contexts, 0);
  }

  // A request that needs every block gets them, and nobody holds a context.
  void expect_nothing_left() {
    EXPECT_FALSE(engine->step());
    model.decoder.config.max_positions = 512;
    EXPECT_EQ(engine->generate(request(options.cache_rows - 3, 3)).tokens.size(), 3u);
    const std::vector<std::weak_ptr<const model::ContextStates>> known(contexts.begin(), contexts.end());
    contexts.clear();
    asked.clear();
    for (const auto& one : known) EXPECT_TRUE(one.expired());
    engine->set_context({});
    EXPECT_EQ(engine->counters().kept_bytes, 0);
  }
};

}  // namespace cepe::test
