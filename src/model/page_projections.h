// Keys and values of all layers in 8 bits (ops/int8_context.h), page by page: a page's depend on nothing else of the
// context, so they can be stored and read back with it (context/projection_store.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "model/cepe_model.h"
#include "ops/int8_context.h"

namespace cepe::model {

// Those of a page of so many rows: uint8 [blocks, block_bytes], layer by layer of those with cross-attention.
ops::Int8PageForm page_projection_form(const CepeModel& model, int64_t rows);

// Bytes that the pages with these rows take.
int64_t page_projection_bytes(const CepeModel& model, std::span<const int64_t> page_rows);

// Memory for each of the pages with these rows; nothing is written yet.
std::vector<at::Tensor> empty_page_projections(const CepeModel& model, std::span<const int64_t> page_rows);

// As keep_projections in 8 bits, on a CPU, in this memory, which context.kept then refers to: of each page, of its
// form. What belongs to pages that are `made` stands there already, and may be read-only.
void keep_projections_in(std::span<const at::Tensor> memory, const std::vector<bool>& made, const CepeModel& model,
                         ContextStates& context);

}  // namespace cepe::model
