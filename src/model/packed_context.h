// Contexts whose pages stay in 8 bits (ops/int8_rows.h) on a CPU: keys and values that are to be kept are made from
// them as they are; whatever reads states layer by layer is given them unpacked, once.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "model/cepe_model.h"
#include "model/cross_attention.h"

namespace cepe::model {

// Whether its K and V come from packed pages as they are: weights in 8 bits by rows, a width that the product has.
bool takes_int8(const CrossAttention& block);

// K and V of all rows side by side, bfloat16 [M, 2 * G * D]. For a block that takes_int8.
at::Tensor project_packed(const CrossAttention& block, std::span<const at::Tensor> pages);

// Pages in 8 bits: packed ones as they are.
std::vector<at::Tensor> packed_pages(std::span<const at::Tensor> pages);

// Its pages unpacked to bfloat16, page by page; dense ones as they are.
ContextStates dense_pages(ContextStates context);

// Whether contexts for this adapter are best handed out packed where they are kept so: on a GPU whose attention reads
// them, and on a CPU, where K and V are made from them as they are.
bool prefers_packed_pages(const Adapter& adapter);

}  // namespace cepe::model
