// A tensor's bytes as formats/ writes them.
#pragma once

#include <ATen/core/Tensor.h>

#include "formats/checkpoint.h"

namespace cepe::model {

// Of a contiguous tensor on the CPU, which must outlive the view. Errors: internal for types that are not saved.
formats::TensorView view_of(const at::Tensor& tensor);

}  // namespace cepe::model
