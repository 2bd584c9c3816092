#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace cepe::train {

double rate_at(const ScheduleSettings& schedule, int64_t step, int64_t steps) {
  const auto total = static_cast<double>(steps);
  const double warm_up = std::floor(schedule.warm_up * total);
  const auto now = static_cast<double>(step);
  if (now < warm_up) return (now + 1) / warm_up;
  if (schedule.kind == "constant") return 1;
  const double from = std::max(warm_up, std::floor(schedule.decay_from * total));
  if (now < from) return 1;
  const double share = std::min(1.0, (now - from) / std::max(1.0, total - from));
  return schedule.kind == "linear" ? 1 - share : 0.5 * (1 + std::cos(std::numbers::pi * share));
}

}  // namespace cepe::train
