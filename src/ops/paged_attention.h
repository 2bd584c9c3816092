// Attention of a ragged batch: the query rows of each sequence over that sequence's own cached rows, which lie in pages
// that sequences may share. The batched, CPU and CUDA, counterpart of row_attention.h, for the same three callers:
//   absorbed cross-attention over chunk states   (G = 1, R = H * T query rows, D = E, keys == values == states),
//   cross-attention over kept keys and values    (R = H/G rows a group and token, D = the head's width),
//   self-attention of new tokens that see every cached row (the same).
// A call allocates nothing but what it is given, copies nothing from the device and waits for nothing, so it can be
// recorded in a CUDA graph: the tables are read where they lie when the graph runs. On a GPU they are read while
// kernels launched before still run, as many of them as follow one another in line (ops/cuda/in_line.cuh), and so are
// pages whose keys serve as values: between what wrote them and a call must stand a copy or a kernel that is not
// launched so.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "ops/row_attention.h"

namespace cepe::ops {

// The pages of all sequences. Whoever fills it keeps the pages' memory alive.
struct PageTable {
  at::Tensor first_page;  // [B + 1] int32: sequence b has pages first_page[b] to first_page[b + 1] of the tables below
  at::Tensor keys;        // [pages] int64: address of a page's first row; a row is [G, D] contiguous elements of `type`
  at::Tensor values;      // likewise; undefined: the keys serve as values, and are read once
  at::Tensor rows;        // [pages] int32: rows of each page, 0 to page_rows
  int64_t page_rows = 256;                   // no page has more
  int64_t groups = 1, width = 0;             // G, D of keys and of values
  int64_t key_stride = 0, value_stride = 0;  // elements from row to row within a page
  // Of the pages. The CPU also takes float32; kChar: packed rows (int8_rows.h) that are keys and values, of one group;
  // kByte: each row
  // [G, D + 4] packed by itself (int8_rows.h), values their own, strides in bytes.
  at::ScalarType type = at::kBFloat16;
};

int64_t address_of(const at::Tensor& tensor);  // of its first element, as a table has it

// The form of pages like these rows [S, G, D], or packed [S, 1, E + 4], with no page yet.
PageTable page_form(const at::Tensor& keys, const at::Tensor& values);
// The same of a cache: rows [slots, G, D], or heads in 8 bits [slots, G, D + 4] (empty_int8_heads).
PageTable cache_form(const at::Tensor& keys, const at::Tensor& values);

// The pages of each sequence as a table on the pages' device (a copy to it: outside graphs). Pages must agree in
// everything but their rows. Errors: invalid_argument, naming what differs.
PageTable page_table(std::span<const std::vector<RowPage>> sequences, at::Device device);

// Heads of a token of each of B sequences [B, H, D] as paged_attention takes them, H/G query rows of each group:
// [B * H/G, G, D], and back.
at::Tensor rows_of_groups(const at::Tensor& queries, int64_t groups);
at::Tensor heads_of_groups(const at::Tensor& rows, int64_t sequences);

struct BatchQueries {
  at::Tensor rows;             // [N, G, D] float32 or bfloat16, contiguous; rounded to bfloat16 on a GPU
  at::Tensor first;            // [B + 1] int32 on the same device: sequence b has rows first[b] to first[b + 1]
  int64_t most_of_a_sequence;  // upper bound of a sequence's rows
  // Above 0: causal. A sequence's query rows are those of its newest tokens, so many side by side for each, whose
  // cached rows are its last; a token sees the cached rows up to its own. Of its pages all but the last are full
  // (page_rows).
  int64_t rows_of_token = 0;
  // Latent pages on a Hopper GPU: from the last cached row to the first. By turns with calls that read the same pages
  // from the first one on, as layers do, a call begins with what the one before left in the second-level cache.
  bool backwards = false;
};

// Written by a call: rows that belong to a sequence without cached rows, or to none (beyond first[B]), become zero with
// a log-sum-exp of -infinity.
struct BatchAttention {
  at::Tensor output;       // [N, G, D] float32 or bfloat16, contiguous
  at::Tensor log_sum_exp;  // [N, G] float32: natural log of the softmax's denominator, scale included
  at::Tensor workspace;    // uint8; at least paged_attention_bytes
};

// Whether a kernel takes these pages there: any on the CPU; on an opened GPU bfloat16 of D 64, 96, 128 and 256, and
// where keys serve as values also 512, 576 and 1024; rows that begin at multiples of 16 bytes; on a Hopper GPU
// heads in 8 bits of D 64, 128 and 256 for up to four query_rows of a sequence.
bool takes_paged_attention(const PageTable& table, at::Device device, int64_t query_rows = 1);
// Whether pages of packed rows of that width are read as they are there: on a Hopper GPU, E 512, 576 and 1024. The CPU
// takes them too, but unpacks them first.
bool takes_int8_pages(int64_t width, at::Device device);

// Whether causal queries of such pages have a kernel: any on the CPU; on a Hopper GPU D 64, 96 and 128 where keys do
// not serve as values.
bool takes_causal_queries(const PageTable& table, at::Device device);

// Of workspace for N query rows. By sizes alone: the same for every content of the tables. Zero on the CPU.
int64_t paged_attention_bytes(const BatchQueries& queries, const PageTable& table);

// output = softmax(scale * q.k) v over all rows of the sequence's pages; scale above zero.
// Errors: invalid_argument (shapes, types, devices, a workspace too small), unsupported (see takes_paged_attention).
void paged_attention(const BatchQueries& queries, const PageTable& table, double scale, BatchAttention& result);

// The same into tensors made for it.
BatchAttention paged_attention(const BatchQueries& queries, const PageTable& table, double scale,
                               at::ScalarType output_type = at::kFloat);

// Of query rows [B * H, 1, E] over pages whose keys are their values: each row of the attention times its head's matrix
// of weight [G * D, E], as head_product (head_product.h) has it.
struct HeadAttention {
  at::Tensor output;       // [B, H, D] of the queries' type
  at::Tensor log_sum_exp;  // [B * H, 1] float32
};
// On a GPU of sm_90 parts are merged and multiplied by one kernel for the rows of one or two tokens. The weight is read
// while the kernel before the attention still runs.
HeadAttention attention_into_heads(const BatchQueries& queries, const PageTable& table, double scale,
                                   const at::Tensor& weight, int64_t heads, int64_t groups);

}  // namespace cepe::ops
