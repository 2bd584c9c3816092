#include "train/replicas.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>

#include "base/memory.h"
#include "ops/device.h"
#include "train/memory_check.h"

namespace cepe::train {

Replicas::Replicas(const Recipe& recipe, int64_t vocabulary, const base::Path& cache,
                   const std::vector<c10::Device>& devices)
    : team_(devices.size()) {
  for (const c10::Device device : devices) {
    std::unique_ptr<Trainee> trainee = make_trainee(recipe, vocabulary, cache, device);
    if (device.is_cpu()) check_optimiser_memory(*trainee, recipe, base::available_bytes());
    Optimiser optimiser(trainee->parameters, recipe.optimiser, static_cast<uint64_t>(recipe.seed));
    all_.push_back({device, std::move(trainee), std::move(optimiser)});
  }
}

void Replicas::run(const std::function<void(size_t)>& work) {
  team_.run([&](size_t rank) {
    const c10::DeviceGuard guard(all_[rank].device);
    work(rank);
  });
}

double Replicas::step(double rate_share, double gradient_scale) {
  if (size() > 1) add_up();
  std::vector<double> norms(size());
  run([&](size_t rank) { norms[rank] = all_[rank].optimiser.step(rate_share, gradient_scale); });
  return norms.front();
}

// Every replica reads the others' sums and keeps its own until all have read them.
void Replicas::add_up() {
  run([&](size_t rank) { ops::synchronise(all_[rank].device); });
  std::vector<at::Tensor> totals(size());
  run([&](size_t rank) {
    const at::NoGradGuard none;
    const at::Tensor own = all_[rank].optimiser.gradients();
    at::Tensor total = at::empty_like(own), other = at::empty_like(own);
    total.copy_(all_.front().optimiser.gradients());
    for (size_t next = 1; next < size(); ++next) {
      other.copy_(all_[next].optimiser.gradients());
      total.add_(other);
    }
    totals[rank] = total;
    ops::synchronise(all_[rank].device);
  });
  run([&](size_t rank) {
    const at::NoGradGuard none;
    all_[rank].optimiser.gradients().copy_(totals[rank]);
  });
}

void Replicas::restored(int64_t steps_done) {
  std::vector<at::Tensor> state;
  first().optimiser.visit([&](const std::string&, at::Tensor& tensor) { state.push_back(tensor); });
  for (Replica& replica : all_) {
    size_t next = 0;
    replica.optimiser.visit([&](const std::string&, at::Tensor& tensor) { tensor.copy_(state[next++]); });
    replica.optimiser.restored(steps_done);
  }
}

}  // namespace cepe::train
