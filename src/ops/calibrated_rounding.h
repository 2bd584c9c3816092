// Rounding to e4m3 with error feedback: what one input's rounding did wrong is made up for by the inputs rounded after
// it, as far as the two vary together. The format stays that of plain rounding (quantise.h): codes and a scale a row.
//
// Over inputs x of a product, rounding W [out, in] to Q costs the sum of |(W - Q) x|^2 = tr(E H E^T), E = W - Q,
// H = sum of x x^T. With H = U D U^T (U upper triangular with ones on its diagonal, D diagonal) that is the sum over
// columns k of D_k |e_k + sum_{j<k} e_j U_jk|^2, so that, from the first column to the last,
//   q_k = round(w_k + sum_{j<k} (w_j - q_j) U_jk)
// leaves the rounding's own error alone in each term. That sum is also what a scale costs a row: eight within a factor
// of two are tried, and the cheapest is kept. More than that is no use, since e4m3 is as fine at every power of two.
// Sources: Frantar et al., "GPTQ", 2022 (arXiv 2210.17323), which takes U from the Cholesky factor of H's inverse;
// Chee et al., "QuIP", 2023 (arXiv 2307.13304), section 3 and theorem 6: this form, which needs no inverse, is the
// same.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/packed_weight.h"

namespace cepe::ops {

// dense [out, in] of any float type and moments [in, in] (symmetric, positive semi-definite) -> fp8_row, on dense's
// device, by the same operations on a CPU and a GPU, and the same at every call. Columns go in the order of falling
// moments, so that the errors of the largest inputs are made up for by all others; a tenth of the diagonal's mean is
// added to it, for inputs that calibration saw too little of. An input that was never seen is rounded to the nearest.
// Cost: 4 * out * in^2 + in^3 / 3 multiply-adds and a few small operations a column. Memory: three [in, in] float64,
// and up to 4 GB for the rows that are rounded at one time. Errors: invalid_argument for other shapes and for moments
// that are not finite.
PackedWeight quantise_calibrated(const at::Tensor& dense, const at::Tensor& moments);

}  // namespace cepe::ops
