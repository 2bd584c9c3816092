// What a program that embeds the engine may do wrong: an error that says what, and an engine that works on.
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include "engine/engine.h"
#include "engine/open.h"
#include "engine_bench.h"
#include "expect_error.h"

namespace cepe::engine {
namespace {

struct Misuse : testing::Test, test::EngineBench {
  model::ContextStates pages_of(const at::Tensor& page) {
    model::ContextStates made;
    made.append(page);
    return made;
  }
  void expect_refused(const std::string& part, model::ContextStates context) {
    Engine engine(model, tokenizer);
    Request over = request(5, 5);
    over.context = std::make_shared<const model::ContextStates>(context);
    test::expect_error(base::ErrorCode::invalid_argument, part, [&] { engine.submit(over); });
    test::expect_error(base::ErrorCode::invalid_argument, part, [&] { engine.set_context(std::move(context)); });
    EXPECT_EQ(engine.generate(request(5, 5)).tokens.size(), 5u);
  }
};

static_assert(!std::is_move_constructible_v<Runtime>, "its store and engines refer to the model where it is");

TEST_F(Misuse, ACallbackThatStepsItsEngineIsToldAndTheOthersAreAnswered) {
  for (const bool at_the_end : {false, true}) {
    Engine engine(model, tokenizer);
    const Request inner = request(3, 40), other = request(4, 12);
    const Completion alone = Engine(model, tokenizer).generate(other);
    Completion found;
    Request outer = request(5, 8);
    if (at_the_end) {
      outer.on_finish = [&](const Completion&) { engine.generate(inner); };
    } else {
      outer.on_step = [&](const Step&) { return engine.generate(inner).tokens.empty(); };
    }
    Request kept = other;
    kept.on_finish = [&](const Completion& completion) { found = completion; };
    engine.submit(outer);
    engine.submit(kept);
    test::expect_error(base::ErrorCode::invalid_argument, "callback", [&] {
      while (engine.step()) {
      }
    });
    while (engine.step()) {
    }
    EXPECT_EQ(found.tokens, alone.tokens);
  }
}

TEST_F(Misuse, GenerateThrowsWhatItsOwnCallbacksThrowAndNothingOfOthers) {
  for (const bool at_the_end : {false, true}) {
    const auto failing = [&](const std::string& text) {
      Request request = this->request(3, 2);
      if (at_the_end) {
        request.on_finish = [text](const Completion&) { throw std::runtime_error(text); };
      } else {
        request.on_step = [text](const Step&) -> bool { throw std::runtime_error(text); };
      }
      return request;
    };
    Engine engine(model, tokenizer);
    engine.submit(failing("of another"));
    EXPECT_EQ(engine.generate(request(5, 8)).tokens.size(), 8u);
    engine.submit(failing("of another"));
    try {
      engine.generate(failing("its own"));
      ADD_FAILURE() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "its own");
    }
    EXPECT_FALSE(engine.step());
  }
}

TEST_F(Misuse, ASecondThreadIsRefusedWhileAStepLasts) {
  Engine engine(model, tokenizer);
  const Request inner = request(2, 2);
  Request outer = request(5, 3);
  int refused = 0;
  outer.on_step = [&](const Step&) {
    std::thread([&] {
      const auto expect_refused = [&](const auto& call) {
        test::expect_error(base::ErrorCode::invalid_argument, "one thread at a time", call);
        ++refused;
      };
      expect_refused([&] { engine.step(); });
      expect_refused([&] { engine.generate(inner); });
      expect_refused([&] { engine.prepare({}); });
      expect_refused([&] { engine.set_context({}); });
      expect_refused([&] { engine.score(ids(5)); });
      expect_refused([&] { engine.counters(); });
    }).join();
    return true;
  };
  EXPECT_EQ(engine.generate(outer).tokens.size(), 3u);
  EXPECT_EQ(refused, 3 * 6);
  EXPECT_EQ(engine.counters().rows, 5 + 2) << "nothing of what was refused";
  std::thread([&] { EXPECT_EQ(engine.generate(inner).tokens.size(), 2u); }).join();
}

TEST_F(Misuse, StatesThatWereMovedElsewhereAreNoContext) {
  model::ContextStates context = states(ids(30));
  const model::ContextStates taken = std::move(context);
  expect_refused("moved", context);  // NOLINT(bugprone-use-after-move,clang-analyzer-cplusplus.Move)
}

TEST_F(Misuse, StatesOfAnotherModelsEncoderAreNoContext) {
  const int64_t width = model.adapter->encoder.config.width;
  expect_refused("values a row", pages_of(at::zeros({4, width + 1})));
  expect_refused("values a row", pages_of(at::zeros({4, width}, at::kLong)));
  expect_refused("values a row", pages_of(at::zeros({4, width, 1})));
  model::ContextStates mixed = states(ids(30));
  mixed.append(at::zeros({4, width}, at::kDouble));
  expect_refused("of one type", mixed);
}

TEST_F(Misuse, AContextOfARequestWithoutAnAdapterIsRefusedRatherThanPassedOver) {
  const model::ContextStates context = states(ids(30));
  model.adapter.reset();
  expect_refused("needs an adapter", context);
}

TEST_F(Misuse, OptionsOutOfRangeAreRefused) {
  const auto made = [&](const EngineOptions& options) {
    return Engine(model, tokenizer, options).generate(request(2, 2));
  };
  test::expect_error(base::ErrorCode::invalid_argument, "-5 rows", [&] { made({.cache_rows = -5}); });
  test::expect_error(base::ErrorCode::invalid_argument, "-7 bytes", [&] { made({.kept_bytes = -7}); });
  EXPECT_EQ(made({.cache_rows = std::numeric_limits<int64_t>::max()}).tokens.size(), 2u);
}

TEST_F(Misuse, ADeviceThatCannotBeOpenedIsToldBeforeAnyModelIsLookedFor) {
  OpenOptions options;
  options.model = "/nowhere";
  options.load.device = at::Device(at::kMeta);
  test::expect_error(base::ErrorCode::invalid_argument, "device 'meta'", [&] { open(options); });
}

}  // namespace
}  // namespace cepe::engine
