// What a decode step reads on the device, so that it can be recorded as a graph: everything that changes from one token
// to the next lies in tensors that the recorded kernels read where they are.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "ops/paged_attention.h"

namespace cepe::model {

// Attribution (page_masses.h): the pages whose shares are wanted, of one sequence after another, filled up with empty
// ones.
struct StepMasses {
  std::vector<ops::PageTable> pages;  // by cross-attention layer or one for all
  at::Tensor of;                      // [P] int64: the sequence whose row asks
  int64_t sequences = 0;              // B
  at::Tensor sum;                     // [P] float32: added to by each layer
  double part_of_layer = 0;           // 1 / number of cross-attention layers
};

// Tables of a pass of B rows, each a token of a sequence of its own or of a text; layers take them instead of a
// layout's host numbers.
struct StepTables {
  std::vector<ops::PageTable> cache;    // by decoder layer: each sequence's rows so far, the new ones included
  std::vector<ops::PageTable> context;  // by cross-attention layer, or one for all (absorbed: the states themselves)
  bool absorbed = true;                 // else kept K and V
  at::Tensor cache_queries;             // int32: first query row of each of the cache's sequences, and the end
  int64_t most_cache_rows = 1;          // query rows of one of them
  int64_t rows_of_token = 0;            // ops::BatchQueries: above 0 where a sequence may be a text
  bool one_row_each = false;            // no two rows of one text: each sequence's token is its last cached row
  // [B + 1] int32: the same for the context, whose sequences are groups of neighbours that share one ([2] where all of
  // them do); and the most rows of such a group.
  at::Tensor context_queries;
  int64_t most_context_rows = 1;
  StepMasses masses;                          // no pages: nobody asks
  at::Tensor frequencies, local_frequencies;  // of the rotation (rope.h), on the device; undefined: learned positions
};

}  // namespace cepe::model
