// Programs that are killed while they encode into the store.
#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include "base/log.h"
#include "context/context_store.h"
#include "disk_records.h"
#include "tiny_encoder.h"

namespace cepe::context {
namespace {

// Three chunks that no other number gives.
std::vector<Chunk> chunks_of(int number) {
  std::vector<Chunk> chunks;
  for (int i = 0; i < 3; ++i) {
    const int id = number * 3 + i, base = static_cast<int>(test::encoder_vocabulary);
    chunks.push_back({{id % base, id / base % base, id / base / base % base, 7, 11}, 0});
  }
  return chunks;
}

StoreOptions options(const base::Path& folder) {
  StoreOptions chosen;
  chosen.folder = folder;
  chosen.chunks_per_batch = 2;
  return chosen;
}

[[noreturn]] void encode_and_tell(const model::Adapter& adapter, const base::Path& folder, int first, int pipe) {
  at::set_num_threads(1);  // the threads of the parent did not come along
  ContextStore store(adapter, options(folder));
  for (int number = first;; ++number) {
    store.get_or_encode(chunks_of(number));
    if (::write(pipe, &number, sizeof number) != sizeof number) ::_exit(1);
  }
}

TEST(StoreCrash, TwoHundredKilledProgramsKeepWhatTheyHadEncoded) {
  base::set_log_level(base::LogLevel::error);
  const base::Path folder = test::quick_folder() / ("cepe-store-killed-" + std::to_string(::getpid()));
  const model::Adapter adapter = test::tiny_adapter();
  std::mt19937_64 random(7);
  std::vector<int> acknowledged;
  int next = 0;
  for (int kill = 0; kill < 200; ++kill) {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const pid_t child = ::fork();
    if (child == 0) encode_and_tell(adapter, folder, next, ends[1]);
    ::close(ends[1]);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 40000));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "kill " << kill << ": it ended by itself";
    for (int number = 0; ::read(ends[0], &number, sizeof number) == sizeof number; next = number + 1)
      acknowledged.push_back(number);
    ::close(ends[0]);
    if (kill % 40 != 39) continue;
    ContextStore store(adapter, options(folder)), fresh(adapter, {});
    for (const int number : acknowledged) {
      const model::ContextStates kept = store.get_or_encode(chunks_of(number));
      const model::ContextStates expected = fresh.get_or_encode(chunks_of(number));
      for (size_t i = 0; i < 3; ++i)
        ASSERT_LT((kept.pages[i] - expected.pages[i]).abs().max().item<float>(), 1e-5) << number;
    }
    ASSERT_EQ(store.counters().encoded, 0) << "after " << kill + 1 << " kills";
  }
  EXPECT_GT(acknowledged.size(), 200u);
  std::filesystem::remove_all(folder);
  base::set_log_level(base::LogLevel::notice);
}

}  // namespace
}  // namespace cepe::context
