// RePlug (arXiv 2301.12652), a peer: every passage is put before the input in a row of its own, and the next-token
// distributions are averaged with softmax(retrieval score). Of the library: no command of the program does it.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "model/decoder.h"

namespace cepe::eval {

// ln sum_i softmax(scores)_i * softmax(logits_i) for the last `rows` positions of the rows [passage_i ; input], which
// are aligned at their ends; positions start at 0 in each. One row at a time, so memory is that of one passage.
//   passages: N tensors [S_i] int64; scores [N]; input [T] int64; 1 <= rows <= T + the shortest S_i -> [rows, V]
//   float32
// Errors: invalid_argument for no passages, another number of scores, rows out of range.
at::Tensor replug_log_probabilities(const model::Decoder& decoder, std::span<const at::Tensor> passages,
                                    const at::Tensor& scores, const at::Tensor& input, int64_t rows);

}  // namespace cepe::eval
