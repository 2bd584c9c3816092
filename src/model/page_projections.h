// Keys and values of all layers in 8 bits (ops/int8_context.h), page by page: what belongs to one page of a context
// lies together, so that it can be stored and read back with it (context/projection_store.h). A page's depend on
// nothing else of the context.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "model/cepe_model.h"

namespace cepe::model {

// Of a page with so many rows: [L * B, bytes of a block], layer by layer of those with cross-attention.
struct PageProjectionForm {
  int64_t blocks, block_bytes;  // L * B
  int64_t bytes() const { return blocks * block_bytes; }
};
PageProjectionForm page_projection_form(const CepeModel& model, int64_t rows);

// As keep_projections in 8 bits, on a CPU: the same values, in `places`, which context.kept then refers to: one a page,
// uint8 of its form. Those of pages that are `made` stand there already.
void keep_projections_in(const std::vector<at::Tensor>& places, const std::vector<bool>& made, const CepeModel& model,
                         ContextStates& context);

}  // namespace cepe::model
