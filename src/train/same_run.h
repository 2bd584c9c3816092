// Whether a run that goes on is the one that its folder holds: recipe, data and decoder.
#pragma once

#include <string>

#include "base/json.h"
#include "train/recipe.h"
#include "train/trainee.h"
#include "train/trainer.h"

namespace cepe::train {

// What a checkpoint remembers of its run, to be told from another by: fields of its state.
struct RunIdentity {
  std::string recipe;   // without what may change when a run goes on: nothing that decides what is learned
  std::string data;     // identity_of_data
  std::string decoder;  // SHA-256 (hexadecimal) of configuration and sampled weights; "" where there is none
};
RunIdentity identity_of_run(const Recipe& recipe, const std::string& data, const Trainee& trainee);

// `state`: of the newest checkpoint; older ones do not know everything. An export asks for no data. Errors:
// invalid_argument for another recipe, naming the first line that differs; mismatch for other data or another decoder,
// a warning with allow_mismatch.
void check_same_run(const base::Json& state, const RunIdentity& now, const Recipe& recipe, const TrainOptions& options);

// Before the first checkpoint nothing but a copy of its recipe and logs is a run's: what it would replace may be
// somebody's. Errors: invalid_argument.
void check_is_free(const Recipe& recipe);

}  // namespace cepe::train
