// Memory in pages of 2 MB, for what is written once and read whole by every question after that: in pages of 4 KB the
// first writing waits for each of them (docs/performance.md).
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

// Asks the system for them, behind a tensor on the CPU that nothing was written to yet. Changes nothing else; what is
// smaller than such a page, or a system without them, stays as it is.
void prefer_large_pages(const at::Tensor& tensor);

}  // namespace cepe::ops
