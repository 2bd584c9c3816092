// What several threads may do with one engine at the same time: submit and cancel, whichever of them steps.
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "engine_bench.h"

namespace cepe::engine {
namespace {

struct Threads : testing::Test, test::EngineBench {
  static constexpr size_t threads = 4, each = 60;

  // Requests of one thread, what came of them, and their ids.
  struct Client {
    std::vector<Request> requests;
    std::vector<Completion> completions = std::vector<Completion>(each);
    std::vector<RequestId> ids;

    void submit_all(Engine& engine) {
      for (size_t i = 0; i < requests.size(); ++i) {
        requests[i].on_finish = [this, i](const Completion& completion) { completions[i] = completion; };
        ids.push_back(engine.submit(requests[i]));
      }
    }
  };
  std::vector<Client> clients(const ContextPointer& context) {
    std::vector<Client> made(threads);
    for (Client& client : made) {
      for (size_t i = 0; i < each; ++i) {
        client.requests.push_back(request(1 + static_cast<int64_t>(i % 5), 3));
        if (i % 2 == 0) client.requests.back().context = context;
      }
    }
    return made;
  }
  static std::vector<std::thread> started(Engine& engine, std::vector<Client>& clients, std::atomic<size_t>& done) {
    std::vector<std::thread> running;
    running.reserve(clients.size());
    for (Client& client : clients) {
      running.emplace_back([&engine, &client, &done] {
        client.submit_all(engine);
        ++done;
      });
    }
    return running;
  }
  void expect_answered(const std::vector<Client>& clients) {
    std::set<RequestId> ids;
    Engine alone(model, tokenizer);
    for (const Client& client : clients) {
      ids.insert(client.ids.begin(), client.ids.end());
      for (size_t i = 0; i < each; ++i) {
        Request request = client.requests[i];
        request.on_finish = nullptr;
        test::expect_close(client.completions[i], alone.generate(request), 1e-4);
      }
    }
    EXPECT_EQ(ids.size(), threads * each);
  }
};

TEST_F(Threads, RequestsOfSeveralThreadsAreAllAnswered) {
  for (const bool while_one_steps : {false, true}) {
    Engine engine(model, tokenizer);
    std::vector<Client> clients = this->clients(engine.prepare(states(ids(20))));
    std::atomic<size_t> done = 0;
    std::vector<std::thread> running = started(engine, clients, done);
    while (while_one_steps && done < threads) engine.step();
    for (std::thread& thread : running) thread.join();
    while (engine.step()) {
    }
    expect_answered(clients);
  }
}

TEST_F(Threads, AnAnswerEndsWhereAnotherThreadCancelsItAndTheOthersGoOn) {
  Engine engine(model, tokenizer);
  Completion cancelled, kept;
  std::atomic<int> tokens = 0;
  Request first = request(5, 400), second = request(5, 30);
  first.on_step = [&](const Step&) { return ++tokens > 0; };
  first.on_finish = [&](const Completion& completion) { cancelled = completion; };
  second.on_finish = [&](const Completion& completion) { kept = completion; };
  const RequestId id = engine.submit(first);
  engine.submit(second);
  std::thread other([&] {
    while (tokens < 3) std::this_thread::yield();
    EXPECT_TRUE(engine.cancel(id));
    EXPECT_FALSE(engine.cancel(id + 100));
  });
  while (engine.step()) {
  }
  other.join();
  EXPECT_EQ(cancelled.finish, Finish::cancelled);
  EXPECT_LT(cancelled.tokens.size(), 400u);
  EXPECT_EQ(kept.tokens.size(), 30u);
  EXPECT_FALSE(engine.cancel(id)) << "it has ended";
}

TEST_F(Threads, WhatWasSubmittedAndCancelledBetweenStepsIsToldOnceAndTakesNoPass) {
  Engine engine(model, tokenizer);
  int told = 0;
  Request several = request(5, 5);
  several.samples = 3;
  several.on_finish = [&](const Completion& completion) {
    EXPECT_EQ(completion.finish, Finish::cancelled);
    ++told;
  };
  std::thread([&] { EXPECT_TRUE(engine.cancel(engine.submit(several))); }).join();
  EXPECT_FALSE(engine.step());
  EXPECT_EQ(told, 3);
  EXPECT_EQ(engine.counters().rows, 0);
}

}  // namespace
}  // namespace cepe::engine
