// The model and its optimiser, once for each device. The micro-batches of a step are dealt out to the replicas, the
// gradients added up over all of them in a fixed order, and every replica makes the same step: bit for bit what one
// would make of the same sums.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <vector>

#include "base/files.h"
#include "train/optimiser.h"
#include "train/team.h"
#include "train/trainee.h"

namespace cepe::train {

struct Replica {
  c10::Device device;
  std::unique_ptr<Trainee> trainee;
  Optimiser optimiser;
};

class Replicas {
 public:
  // One replica for each device, a device as often as it is named. Errors: those of make_trainee.
  Replicas(const Recipe& recipe, int64_t vocabulary, const base::Path& cache, const std::vector<c10::Device>& devices);

  size_t size() const { return all_.size(); }
  Replica& first() { return all_.front(); }
  Replica& operator[](size_t rank) { return all_[rank]; }

  // work(rank) for every replica at once, each with its device as the current one; rethrows the first error.
  void run(const std::function<void(size_t rank)>& work);

  // Adds the gradients up over the replicas and makes one step everywhere (Optimiser::step). Returns the norm.
  double step(double rate_share, double gradient_scale);

  // Gives all the others the first one's state, after somebody wrote into it (Optimiser::visit).
  void restored(int64_t steps_done);

 private:
  void add_up();

  std::vector<Replica> all_;
  Team team_;
};

}  // namespace cepe::train
