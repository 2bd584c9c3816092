// What the files of BatchStep share: the tables of one recorded size.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>

#include <memory>
#include <utility>
#include <vector>

#include "model/batch_step.h"
#include "model/step_tables.h"
#include "ops/device_graph.h"

namespace cepe::model {

inline constexpr int64_t kept_page_rows = 256;

// What a recording is good for.
struct BatchStep::Plan {
  int64_t batch = 0, pages = 0;                // sizes of the tables
  int64_t asked = 0;                           // rows whose logits are wanted; 0: all
  int64_t sequences = 0, longest = 1;          // of the cache's tables, and the tokens of one of them, at most
  int64_t context_pages = 0, neighbours = 0;   // neighbours: sequences that share a context, at most
  int64_t context_page_rows = kept_page_rows;  // of a page, at most
  bool texts = false;                          // several rows of one sequence
  bool kept = false;
  bool packed = false;                         // absorbed, over states in 8 bits
  bool joined = false;                         // all rows read one context: they are one sequence of its tables
  int64_t mass_pages = 0, mass_page_rows = 0;  // of the rows that ask for their masses

  bool crossed() const { return context_pages > 0; }
  bool operator==(const Plan&) const = default;
};

struct BatchStep::Recording {
  Plan plan;
  std::shared_ptr<StepTables> tables = std::make_shared<StepTables>();
  at::Tensor uploaded;        // int64: the memory of the next two
  at::Tensor numbers;         // int64: tokens, positions, slots [B each], offsets of the cache's pages in bytes [P],
                              // rows whose logits are wanted [A]
  at::Tensor counts;          // int32: first page, first query row of each sequence [S + 1 each], rows of the pages [P]
  at::Tensor addresses;       // int64 [2, L, P]: the cache's pages, by layer
  at::Tensor context_counts;  // int32: first page, first query row of each group [B + 1 each], rows of the pages [Q]
  at::Tensor context_addresses;  // int64 [2 * layers or 1, Q]
  at::Tensor mass_rows;          // int32 [P]: of each page whose mass is wanted
  at::Tensor mass_numbers;       // int64 [1 + layers or 1, P]: its sequence, its addresses
  // Those in the tables, and whether the row asks for its masses: what tells one from another.
  std::vector<std::pair<std::shared_ptr<const ops::PageTable>, bool>> contexts;
  const ContextStates* any_context = nullptr;
  at::Tensor logits;
  int64_t asked = 0;  // how often, a step of tokens that are decoded counting for several
  std::unique_ptr<ops::DeviceGraph> graph;
};

// Returns once CUDA has taken its own copy of the values, without waiting for what the stream does before.
template <class T>
void upload(const std::vector<T>& values, const at::Tensor& to) {
  const at::Tensor from = at::from_blob(const_cast<T*>(values.data()), {static_cast<int64_t>(values.size())},
                                        at::CppTypeToScalarType<T>::value);
  at::Tensor(to).narrow(0, 0, from.size(0)).copy_(from, true);
}

// Pages of a context, as states or as kept K and V.
int64_t pages_of(const ContextStates& context, bool kept);
// A table of no pages for rows like these [slots, G, D].
ops::PageTable form_of(const at::Tensor& rows, int64_t page_rows);
inline bool has_rows(const ContextStates* context) { return context && context->rows > 0; }

}  // namespace cepe::model
