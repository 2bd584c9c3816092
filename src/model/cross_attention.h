// The cross-attention block that CEPE adds to a decoder layer: h += o * softmax(q k / sqrt(D)) v with q from the
// layer's hidden rows, k and v from the encoder's states. No rotary embedding, no causal mask, no biases.
//
// k and v are linear in the states, so the same sum can be had in three ways (chosen by cost, see
// cost_model.h):
//   projected  K and V of one layer at a time, in tiles merged by log-sum-exp, thrown away
//   absorbed   score = (Wk_g^T q_h) . state, out_h = Wv_g * sum(a * state): the states are read as they are
//   kept       K and V of all layers stay in memory beside the states, on a CPU also in 8 bits (ops/int8_context.h)
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/hash.h"
#include "model/cost_model.h"
#include "model/layout.h"
#include "model/linear.h"
#include "model/norm.h"
#include "model/shared_context.h"
#include "ops/paged_attention.h"

namespace cepe::ops {
struct Int8Context;
}

namespace cepe::model {

struct CrossAttention {
  Norm norm;      // cross_attn.layernorm, an RMSNorm with the decoder's eps in every family
  Linear query;   // [C -> H*D]
  Linear key;     // [E -> G*D]
  Linear value;   // [E -> G*D]
  Linear output;  // [H*D -> C]
};

enum class CrossAttentionPath { automatic, projected, absorbed, kept };

// Encoder states that one sequence attends to: pages in order, padding left out.
struct ContextStates {
  std::vector<at::Tensor> pages;  // each [S_i, E], or all of them packed [S_i, E + 4] (ops/int8_rows.h)
  int64_t rows = 0;               // M = sum of S_i
  // What a store knows the pages by, one each. Of another number: they are not known.
  std::vector<base::Digest> keys;

  // Keys and values of all layers, where they are kept: of each cross-attention layer a pair [M, G, D], or both in 8
  // bits. Empty otherwise.
  struct Projected {
    at::Tensor keys, values;
    std::shared_ptr<const ops::Int8Context> in_8_bits = nullptr;

    int64_t bytes() const;
    at::ScalarType type() const { return in_8_bits ? at::kByte : keys.scalar_type(); }
  };
  std::vector<Projected> kept;

  // The pages as kernels read them; made when first asked for, by any thread, dropped by append. There is a page. A
  // copy makes its own: it may be taken while another thread asks.
  const std::shared_ptr<const ops::PageTable>& table() const;

  int64_t state_width() const;  // E; there is a page

  void append(const at::Tensor& page);

 private:
  struct Table {
    Table() = default;
    Table(const Table& /*others*/) {}
    Table(Table&&) noexcept = default;
    Table& operator=(const Table& others) {
      if (this != &others) made.reset();
      return *this;
    }
    Table& operator=(Table&&) noexcept = default;
    ~Table() = default;
    std::shared_ptr<const ops::PageTable> made;
  };
  mutable Table table_;
};

// What the last row of a sequence gave to each page of its context: the softmax's mass, mean over heads, added up over
// layers. Divided by `layers` it sums to 1.
struct ContextMass {
  at::Tensor sum;  // [pages] float32
  int64_t layers = 0;
};

// What a decoder pass needs to attend to contexts.
struct CrossAttentionInput {
  // By decoder layer [L]; nullptr = that layer has no block. Empty = no block anywhere.
  std::vector<const CrossAttention*> blocks;
  // By sequence of the layout; nullptr or no rows = that sequence has no context and gets exactly nothing.
  std::vector<const ContextStates*> contexts;
  CrossAttentionPath path = CrossAttentionPath::automatic;
  // Instead of contexts: K and V of one layer at a time are projected once for all windows.
  std::optional<SharedContext> shared = {};
  // By sequence, where wanted (nullptr: not): filled as the pass goes. Empty = nowhere.
  std::vector<ContextMass*> masses = {};

  bool active() const;
};

struct HeadShape {
  int64_t heads = 0, groups = 0, width = 0;  // H, G, D
};

double scale_of(const HeadShape& shape);  // of scores: 1 / sqrt(D)

// Of a pass of `rows` query rows over a context that has rows.
CrossAttentionCost cost_of(const ContextStates& context, int64_t rows, const HeadShape& shape);

// normed [N, C]: the hidden rows after block.norm -> what is added to the hidden rows [N, C]. `layer` counts
// cross-attention layers from 0 (index into ContextStates::kept). Errors: invalid_argument where the path is kept and a
// context has no K and V.
at::Tensor forward(const CrossAttention& block, const at::Tensor& normed, const BatchLayout& layout,
                   const CrossAttentionInput& input, const HeadShape& shape, int64_t layer);

// Two of the ways, for one sequence: queries [T, H, D] -> [T, H, D] of the queries' type. The context has a page.
// (Kept K and V are read by attend_all, those in 8 bits by ops::int8_attention.)
at::Tensor attend_projected(const CrossAttention& block, const at::Tensor& queries, const ContextStates& context,
                            const HeadShape& shape);
at::Tensor attend_absorbed(const CrossAttention& block, const at::Tensor& queries, const ContextStates& context,
                           const HeadShape& shape);

// Wk_g^T q_h for queries [T, H, D]: -> [H * T, 1, E], by group, then row, then head of the group.
at::Tensor absorbed_queries(const CrossAttention& block, const at::Tensor& queries, const HeadShape& shape);

// Fills context.kept for all blocks (those not nullptr, in order), K and V in `type`; at::kByte: in 8 bits, on a CPU
// only. Whatever is thrown (LibTorch's, without memory), nothing is kept then.
void keep_projections(ContextStates& context, std::span<const CrossAttention* const> blocks, const HeadShape& shape,
                      at::ScalarType type);

// Published names below "model.layers.N.cross_attn.": {q,k,v,o}_proj.weight, layernorm.weight.
void visit(CrossAttention& block, const std::string& prefix,
           const std::function<void(const std::string&, at::Tensor&)>& visitor);

}  // namespace cepe::model
