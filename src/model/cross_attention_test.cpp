#include "model/cross_attention.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <latch>
#include <memory>
#include <thread>
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

}  // namespace
}  // namespace cepe::model
