// Keys and values of all layers in 8 bits (ops/int8_context.h), page by page: a page's depend on nothing else of the
// context, so they can be stored and read back with it (context/projection_store.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "model/cepe_model.h"

namespace cepe::model {

// Where the keys and values of a context in 8 bits stand: of each layer with cross-attention those of its pages, one
// behind the other.
struct PageProjections {
  std::vector<at::Tensor> layers;  // each uint8 [blocks of all pages, bytes of a block]

  // Of the pages with these rows; nothing is written yet.
  PageProjections(const CepeModel& model, std::span<const int64_t> page_rows);

  int64_t block_bytes() const { return layers.front().size(1); }
  int64_t blocks_of(size_t page) const { return first_block_[page + 1] - first_block_[page]; }  // in each layer
  // Of a page: what each layer has of it.
  std::vector<at::Tensor> parts_of(size_t page) const;

 private:
  std::vector<int64_t> first_block_ = {0};
};

// Bytes that the pages with these rows take in all layers.
int64_t page_projection_bytes(const CepeModel& model, std::span<const int64_t> page_rows);

// As keep_projections in 8 bits, on a CPU, in these places, which context.kept then refers to. What belongs to pages
// that are `made` stands there already.
void keep_projections_in(const PageProjections& places, const std::vector<bool>& made, const CepeModel& model,
                         ContextStates& context);

}  // namespace cepe::model
