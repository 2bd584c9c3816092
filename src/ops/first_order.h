// Our own gradients are first derivatives: made by kernels that autograd cannot look into.
#pragma once

#include <ATen/core/grad_mode.h>

#include <string>

#include "base/error.h"

namespace cepe::ops {

// Called at the start of a gradient. Errors: unsupported, where the gradient itself is to be differentiated
// (create_graph); returning it as a constant would be silently wrong.
inline void refuse_second_derivative(const char* operation) {
  if (!at::GradMode::is_enabled()) return;
  throw base::Error(base::ErrorCode::unsupported,
                    std::string(operation) +
                        ": asked for a gradient that can be differentiated again (create_graph); " +
                        "only first derivatives are there");
}

}  // namespace cepe::ops
