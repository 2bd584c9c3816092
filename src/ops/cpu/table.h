// The table of one level: every kernel over its vector type.
#pragma once

#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/elementwise_kernel.h"
#include "ops/cpu/gradient_kernel.h"
#include "ops/cpu/int8_rows_kernel.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/packed_kernel.h"

namespace cepe::ops::cpu {

template <class V>
constexpr Kernels table_of() {
  using enum PackedKind;
  using Half = uint16_t;  // the bits of a bfloat16
  return {
      .row_block = V::row_block,
      .attention_step = 2 * V::width,
      .multiply = {multiply_packed<V, q4_0, float>, multiply_packed<V, q4_1, float>, multiply_packed<V, q8_0, float>,
                   multiply_packed<V, int8_row, float>},
      .unpack_float = {unpack_columns<V, float, q4_0>, unpack_columns<V, float, q4_1>, unpack_columns<V, float, q8_0>,
                       unpack_columns<V, float, int8_row>},
      .unpack_bfloat16 = {unpack_columns<V, Half, q4_0>, unpack_columns<V, Half, q4_1>, unpack_columns<V, Half, q8_0>,
                          unpack_columns<V, Half, int8_row>},
      .attend_bfloat16 = attend_rows<V, Half>,
      .attend_float = attend_rows<V, float>,
      .rms_norm_float = rms_norm_rows<V, float>,
      .rms_norm_bfloat16 = rms_norm_rows<V, Half>,
      .rms_norm_backward_float = rms_norm_gradient_rows<V, float>,
      .rms_norm_backward_bfloat16 = rms_norm_gradient_rows<V, Half>,
      .layer_norm_float = layer_norm_rows<V, float>,
      .layer_norm_bfloat16 = layer_norm_rows<V, Half>,
      .rotate_float = rotate_rows<V, float>,
      .rotate_bfloat16 = rotate_rows<V, Half>,
      .silu_float = gated_rows<V, float, Silu>,
      .silu_bfloat16 = gated_rows<V, Half, Silu>,
      .gelu_tanh_float = gated_rows<V, float, GeluTanh>,
      .gelu_tanh_bfloat16 = gated_rows<V, Half, GeluTanh>,
      .relu_float = gated_rows<V, float, Relu>,
      .relu_bfloat16 = gated_rows<V, Half, Relu>,
      .silu_backward_float = gated_silu_gradient_rows<V, float>,
      .silu_backward_bfloat16 = gated_silu_gradient_rows<V, Half>,
      .int8_rows_float = int8_rows_of<V, float>,
      .int8_rows_bfloat16 = int8_rows_of<V, Half>,
  };
}

}  // namespace cepe::ops::cpu
