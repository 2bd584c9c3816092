#include "model/cross_attention.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <latch>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace cepe::model {
namespace {

// Engines on several threads may share a context.
TEST(ContextStates, ThreadsThatAskForTheTableAtOneTimeGetOne) {
  constexpr int rounds = 200, threads = 4;
  for (int round = 0; round < rounds; ++round) {
    ContextStates context;
    for (int page = 0; page < 8; ++page) context.append(at::zeros({4, 8}));
    std::latch all_there(threads);
    std::vector<std::shared_ptr<const ops::PageTable>> found(threads);
    std::vector<std::thread> asking;
    asking.reserve(threads);
    for (auto& own : found) {
      asking.emplace_back([&] {
        all_there.arrive_and_wait();
        own = context.table();
      });
    }
    for (std::thread& thread : asking) thread.join();
    EXPECT_EQ(std::count(found.begin(), found.end(), context.table()), threads);
  }
}

// A copy reads nothing that another thread may be writing: an answer whose window slides copies its context while an
// engine on another thread begins to read it.
TEST(ContextStates, ACopyMakesATableOfItsOwn) {
  ContextStates context;
  context.append(at::zeros({4, 8}));
  const std::shared_ptr<const ops::PageTable> table = context.table();
  const ContextStates copy = context;
  ContextStates assigned;
  assigned.append(at::zeros({2, 8}));
  assigned.table();
  assigned = context;
  EXPECT_EQ(context.table(), table);
  for (const ContextStates& other : {std::cref(copy), std::cref(assigned)}) {
    EXPECT_NE(other.table(), table);
    EXPECT_TRUE(at::equal(other.table()->keys, table->keys)) << "of the same pages";
  }
  const ContextStates moved = std::move(context);
  EXPECT_EQ(moved.table(), table);
}

}  // namespace
}  // namespace cepe::model
