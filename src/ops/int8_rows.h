// Rows of values in 8 bits with a scale a row: how the states of chunks may be kept, on any tier and as pages that
// attention reads as they are (paged_attention.h).
//
// Packed rows [.., S, E + 4] are uint8, the last two dimensions contiguous: S * E int8 values, row by row, then S
// float32 scales. A value is its int8 times the scale of its row.
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

inline bool is_int8_rows(const at::Tensor& rows) { return rows.scalar_type() == at::kByte; }
// E of packed or of dense rows.
inline int64_t row_width(const at::Tensor& rows) { return rows.size(-1) - (is_int8_rows(rows) ? 4 : 0); }

// Whether these are heads of a cache: [slots, G, D + 4], each slot packed by itself, so that a head has a scale.
bool is_int8_heads(const at::Tensor& cache, int64_t groups, int64_t width);
// Such a cache of that many slots, whose bytes are not set. Slots begin at multiples of 16 bytes.
at::Tensor empty_int8_heads(int64_t slots, int64_t groups, int64_t width, at::Device device);

// Dense rows [.., S, E] of any float type -> packed, each value rounded to the nearest of 255 steps: scale = largest
// magnitude of the row / 127.
at::Tensor int8_rows(const at::Tensor& dense);

// Rows [.., G, D] as that cache keeps them: packed, or in its type.
at::Tensor as_cached(const at::Tensor& rows, const at::Tensor& cache);

// The reverse of int8_rows, as `type`. Dense rows are given back as they are.
at::Tensor unpacked_rows(const at::Tensor& rows, at::ScalarType type = at::kBFloat16);

}  // namespace cepe::ops
