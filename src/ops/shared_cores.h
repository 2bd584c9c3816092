// Processors that other programs want too, on Linux. libgomp's threads wait for one another, between the loops of an
// operator, by spinning 300,000 times (milliseconds) before they sleep. That is quickest where each has a processor of
// its own. Where it has not, whoever spins uses up the time of the thread it waits for: two threads beside two busy
// loops, two processors, decode over 8,192 tokens at 13 to 24 tokens/s, and at 34 to 49 where they soon sleep, which
// alone on the machine makes 48 of 90.
#pragma once

#include <memory>

namespace cepe::ops {

// Whether processors are found to be shared: no earlier than after two windows, and believed until two tell otherwise.
class Crowding {
 public:
  static constexpr double window = 0.1;  // seconds of work, at least, that add() is told of

  // Of all the time that threads worked, the share in which they waited for a processor. Returns what is found.
  bool add(double share);

 private:
  bool crowded_ = false;
  int windows_ = 0;  // in a row that tell otherwise
};

// While it lives there are more OpenMP threads than processors, and libgomp's spin 100 times before they sleep (its
// manual, GOMP_SPINCOUNT). They do nothing. Of a system that gives no threads none are taken.
class IdleThreads {
 public:
  explicit IdleThreads(int others);  // threads of OpenMP that there are without it
  ~IdleThreads();
  IdleThreads(const IdleThreads&) = delete;
  IdleThreads& operator=(const IdleThreads&) = delete;

 private:
  struct Team;
  std::unique_ptr<Team> team_;
};

// Around work with all threads, on the thread that asks for it: finds by the scheduler's figures
// (/proc/self/task/*/schedstat) whether processors are shared, and has IdleThreads as long as they are.
class WorkOfAllThreads {
 public:
  WorkOfAllThreads();
  ~WorkOfAllThreads();
  WorkOfAllThreads(const WorkOfAllThreads&) = delete;
  WorkOfAllThreads& operator=(const WorkOfAllThreads&) = delete;

 private:
  double begun_;
};

}  // namespace cepe::ops
