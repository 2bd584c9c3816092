// Products of many rows with a dense matrix on a GPU, by the one of the library's algorithms that is the fastest. Of
// the eight that cuBLASLt proposes its first is often not: on an H200 others take up to a fifth less
// (docs/performance.md). So they are measured when a product's sizes come for the first time, on its own numbers, some
// ten to forty milliseconds; all later ones of this process take the same, and give the same bits. Bound: operations
// over the rate of tensor cores; of at most 64 rows the weight's bytes over the memory's bandwidth.
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

// What products of these sizes share a choice with: 0 where none is made, since they are small, or since there would be
// a choice for each number of rows. Above: so many tiles of the result that a last, incomplete round of them hardly
// counts (powers of two), or few of whole thousands of rows (1,024), or rows up to 64 (sixteens) with a weight that no
// cache keeps.
int64_t rows_alike(int64_t rows, int64_t inputs, int64_t outputs);

// x weight^T -> [..., out] of x's type, for x [..., in] and weight [out, in]. Of few rows by ops/row_product.h, where
// it takes them. at::linear for all that is not bfloat16 on an opened GPU, contiguous, aligned to 256 bytes and of
// sizes with a choice, or that is differentiated; and within a recording (ops/device_graph.h) of sizes that did not
// come before it.
at::Tensor tuned_product(const at::Tensor& x, const at::Tensor& weight);
// Into y [rows, out], contiguous.
void tuned_product_into(const at::Tensor& y, const at::Tensor& x, const at::Tensor& weight);

}  // namespace cepe::ops
