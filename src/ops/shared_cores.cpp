#include "ops/shared_cores.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <latch>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/processor_time.h"

namespace cepe::ops {
namespace {

// Of looking at the scheduler's figures, which takes longer the more threads there are: at most so much of the time.
constexpr double share_of_looking = 0.003;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Seconds for which this process's threads have been ready and without a processor; 0 where nobody tells.
double waited_for_processors() {
  double all = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator task("/proc/self/task", error), end; !error && task != end;
       task.increment(error)) {
    std::ifstream file(task->path() / "schedstat");
    double ran = 0, waited = 0;
    if (file >> ran >> waited) all += waited;
  }
  return all * 1e-9;
}

// What a thread that asks for work keeps.
struct Watch {
  Crowding crowding;
  std::unique_ptr<IdleThreads> idle;
  double worked = 0, window = Crowding::window, waited = waited_for_processors();
};

Watch& own_watch() {
  thread_local Watch watch;
  return watch;
}

// Whether the system gives so many: libgomp ends the process where it gets none.
bool gives_threads(int count) {
  std::vector<std::thread> threads;
  std::latch all(1);
  bool gives = true;
  try {
    for (int i = 0; i < count; ++i) threads.emplace_back([&all] { all.wait(); });
  } catch (const std::system_error&) {
    gives = false;
  }
  all.count_down();
  for (std::thread& thread : threads) thread.join();
  return gives;
}

}  // namespace

bool Crowding::add(double share) {
  const bool otherwise = crowded_ ? share < 0.05 : share > 0.15;
  windows_ = otherwise ? windows_ + 1 : 0;
  if (windows_ == 2) {
    crowded_ = !crowded_;
    windows_ = 0;
  }
  return crowded_;
}

struct IdleThreads::Team {
  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false;
  std::thread thread;

  // A team lives as long as the thread that it was made for, which libgomp does not count.
  void live(int threads) {
    std::atomic<int> there = 0;
#pragma omp parallel num_threads(threads + 1)
    ++there;
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return ended; });
  }
};

IdleThreads::IdleThreads(int others) : team_(std::make_unique<Team>()) {
  const int needed = std::max(1, omp_get_num_procs() - others + 1);
  if (gives_threads(needed + 1)) team_->thread = std::thread([this, needed] { team_->live(needed); });
}

IdleThreads::~IdleThreads() {
  {
    const std::lock_guard lock(team_->mutex);
    team_->ended = true;
  }
  team_->changed.notify_one();
  if (team_->thread.joinable()) team_->thread.join();
}

WorkOfAllThreads::WorkOfAllThreads() : begun_(now()) { own_watch(); }

WorkOfAllThreads::~WorkOfAllThreads() {
  Watch& watch = own_watch();
  watch.worked += now() - begun_;
  if (watch.worked < watch.window) return;
  const int threads = omp_get_max_threads();
  const double begun = base::thread_seconds(), waited = waited_for_processors();
  watch.window = std::max(Crowding::window, (base::thread_seconds() - begun) / share_of_looking);
  const bool crowded = threads > 1 && watch.crowding.add((waited - watch.waited) / (watch.worked * threads));
  watch.worked = 0;
  watch.waited = waited;
  if (!crowded) watch.idle.reset();
  if (crowded && !watch.idle) watch.idle = std::make_unique<IdleThreads>(threads);
}

}  // namespace cepe::ops
