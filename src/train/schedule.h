// The learning rate over a run.
#pragma once

#include <cstdint>

#include "train/recipe.h"

namespace cepe::train {

// Share of the peak rate for step `step` of `steps` (from 0): a linear warm-up, full rate until decay_from, then down
// to zero at the end (cosine or linear) or constant.
double rate_at(const ScheduleSettings& schedule, int64_t step, int64_t steps);

}  // namespace cepe::train
