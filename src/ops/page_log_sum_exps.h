// How much each page of a context would give to a softmax over all of them: what attribution is made of.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/paged_attention.h"

namespace cepe::ops {

// Natural log of the sum of exp(scale * q.k) over the rows of each page by itself, of query rows asked about it.
//   rows   [B * R, G, D] float32 or bfloat16, contiguous: R query rows of each of B sequences; bfloat16 on a GPU
//   of     [P] int64 on the rows' device: the sequence whose rows are asked about each page
//   table  P pages; which sequence they are of, and their values, are not read
// -> [P, R, G] float32; -infinity for a page without rows. Can be recorded, like paged_attention.
// Errors: invalid_argument, unsupported, as paged_attention.
at::Tensor page_log_sum_exps(const at::Tensor& rows, int64_t sequences, const at::Tensor& of, const PageTable& table,
                             double scale);

}  // namespace cepe::ops
