// What several threads may do with one engine at the same time: submit and cancel, whichever of them steps.
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine_bench.h"

namespace cepe::engine {
namespace {

// While one is there, `action` is run by the first allocation.
class AtFirstAllocation : public c10::Allocator {
 public:
  explicit AtFirstAllocation(std::function<void()> action) : action_(std::move(action)), real_(c10::GetCPUAllocator()) {
    c10::SetCPUAllocator(this, most_important);
  }
  ~AtFirstAllocation() override { c10::SetCPUAllocator(real_, most_important); }
  AtFirstAllocation(const AtFirstAllocation&) = delete;
  AtFirstAllocation& operator=(const AtFirstAllocation&) = delete;

  c10::DataPtr allocate(size_t size) override {
    if (!done_.exchange(true)) action_();
    return real_->allocate(size);
  }
  c10::DeleterFnPtr raw_deleter() const override { return real_->raw_deleter(); }
  void copy_data(void* to, const void* from, std::size_t count) const override { real_->copy_data(to, from, count); }

 private:
  static constexpr uint8_t most_important = 255;
  std::function<void()> action_;
  std::atomic<bool> done_ = false;
  c10::Allocator* real_;
};

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

// Whichever two come together between steps: the second begins when the first is done, a step too.
TEST_F(Threads, BetweenStepsOneWaitsForTheOther) {
  const model::ContextStates first = states(ids(40)), second = states(ids(30));
  const std::vector<text::Token> text = ids(20);
  Engine engine(model, tokenizer);
  using Call = std::function<void()>;
  const Call score = [&] { engine.score(text); }, set = [&] { engine.set_context(second); },
             prepare = [&] { engine.prepare(second); }, step = [&] { engine.step(); };
  for (const auto& [one, other] :
       std::vector<std::pair<Call, Call>>{{score, set}, {score, score}, {score, step}, {set, prepare}, {set, set}}) {
    engine.set_context(first);
    std::future<void> waiting;
    {
      const AtFirstAllocation meanwhile([&, call = other] {
        waiting = std::async(std::launch::async, call);
        EXPECT_EQ(waiting.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout) << "it did not wait";
      });
      one();
      waiting.get();
    }
  }
  engine.set_context(first);
  const at::Tensor expected = engine.score(text);
  std::vector<std::future<at::Tensor>> scores;
  scores.reserve(4);
  for (int i = 0; i < 4; ++i) scores.push_back(std::async(std::launch::async, [&] { return engine.score(text); }));
  for (std::future<at::Tensor>& one : scores) EXPECT_TRUE(one.get().equal(expected));
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
