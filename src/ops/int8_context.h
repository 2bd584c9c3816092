// Keys and values of a context kept in 8 bits, and attention over them, on the CPU: half the bytes of bfloat16, and
// products of bytes, of which a processor does twice as many. What that costs: docs/performance.md.
//   made      from states and weights that are both rounded to 8 bits, with a scale a row (int8_rows.h)
//   a key     8 bits and a scale of its own
//   values    8 bits and a scale for each column of a block of at most 64 rows
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "ops/cpu/kernels.h"
#include "ops/row_attention.h"

namespace cepe::ops {

// Keys and values of one layer: blocks of rows of the layout in cpu/kernels.h. A page begins a block.
struct Int8Context {
  std::vector<uint8_t*> blocks;                        // wherever each stands
  std::vector<at::Tensor> memory;                      // that they stand in, perhaps among others
  std::vector<int32_t> block_rows;                     // of each block
  std::vector<int64_t> page_blocks;                    // of each page: how many
  int64_t groups = 0, key_width = 0, value_width = 0;  // G, D, Dv

  int64_t bytes() const;
  void append(const Int8Context& other);  // its pages behind these; the same shape
};

// Bytes that the keys and values of one layer of pages with these rows take.
int64_t int8_context_bytes(std::span<const int64_t> page_rows, int64_t groups, int64_t key_width, int64_t value_width);

// The form of a layer's keys and values of one page: uint8 [blocks, block_bytes].
struct Int8PageForm {
  int64_t blocks, block_bytes;
};
Int8PageForm int8_page_form(int64_t rows, int64_t groups, int64_t key_width, int64_t value_width);

// Whether K and V can be made from states of that width: a multiple of 4.
inline bool takes_int8_context(int64_t width) { return width % 4 == 0; }

// pages: states, packed (int8_rows.h) on the CPU; keys, values: weights float32 [G * D, E], [G * Dv, E]; E: a
// multiple of 4. Errors: invalid_argument for anything else.
Int8Context project_int8(std::span<const at::Tensor> pages, const at::Tensor& keys, const at::Tensor& values,
                         int64_t groups, const cpu::Int8ContextKernel& kernel = cpu::int8_context_kernel());
// The same into blocks that stand already, of pages with as many rows.
void project_int8_into(const Int8Context& context, std::span<const at::Tensor> pages, const at::Tensor& keys,
                       const at::Tensor& values, const cpu::Int8ContextKernel& kernel = cpu::int8_context_kernel());
// One layer of keys and values that stand page by page: `memory`: for each page uint8 [layers * blocks, block_bytes],
// layer by layer, without holes on the CPU; page_rows: of each page. Errors: invalid_argument for anything else.
Int8Context int8_context_of(std::span<const at::Tensor> memory, int64_t layer, std::span<const int64_t> page_rows,
                            int64_t groups, int64_t key_width, int64_t value_width);

// As row_attention, over all pages: queries [R, G, D] float32, scale above zero.
RowAttention int8_attention(const at::Tensor& queries, const Int8Context& context, double scale,
                            const cpu::Int8ContextKernel& kernel = cpu::int8_context_kernel());

// Log-sum-exps of scale * q.k over each page alone: [pages, R, G] float32.
at::Tensor int8_page_log_sum_exps(const at::Tensor& queries, const Int8Context& context, double scale,
                                  const cpu::Int8ContextKernel& kernel = cpu::int8_context_kernel());

}  // namespace cepe::ops
