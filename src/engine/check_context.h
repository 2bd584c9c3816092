// What is asked of states before a decoder reads them: they may come from anywhere.
#pragma once

#include "model/cepe_model.h"

namespace cepe::engine {

// Errors: invalid_argument, saying what of the context does not go with the model: a context without an adapter, pages
// that are no states of its encoder ([S, E] of one type, or packed, on the model's device), other rows than the pages
// have (ContextStates that were moved from).
void check_context(const model::CepeModel& model, const model::ContextStates& context);

}  // namespace cepe::engine
