// Which of the three ways of cross-attention costs least. One place, plain numbers, no tensors.
#pragma once

#include <cstdint>

namespace cepe::model {

// Letters: T query rows of this call, M context rows, H query heads, G key/value heads, D head width, E encoder width.
struct CrossAttentionCost {
  int64_t query_rows = 1;
  int64_t context_rows = 0;
  int64_t heads = 0, groups = 0, head_width = 0, encoder_width = 0;
  bool kept_available = false;  // K and V of all layers are in memory already
  bool cpu = true;              // no matrix unit that would hide arithmetic behind memory
};

enum class CheapestPath { projected, absorbed, kept };

// Multiply-adds a layer, per context row:
//   projected  2*G*D*E + 2*H*D*T      absorbed  2*H*E*T      kept  2*H*D*T
// so absorbing is cheaper than projecting below T* = G*E*D / (H*(E-D)) rows: 146 for the 7B shape, 24 for SmolLM2 with
// E 576. Kept is never more work than either and is chosen where it is there, but on a GPU for so few rows that its
// bytes would take longer than absorbing (pass_cost): fewer than 16 of the 7B shape.
CheapestPath cheapest(const CrossAttentionCost& cost);

// Of packed states a GPU's kernel reads everything again for every 32 query rows (H * T): beyond a few such blocks they
// are unpacked first.
inline constexpr int64_t most_rows_over_packed = 128;

// Time of a layer's pass, per context row, in bytes that the device could read meanwhile: the larger of what is read
//   projected  2*E, and projection_cost     absorbed  2*E     kept  4*G*D
// and of the operations, at 128 a byte on a GPU (500 TFLOP/s of attention beside 4 TB/s) and 6 on a CPU (280 GFLOP/s
// beside 45 GB/s); docs/performance.md has both.
double pass_cost(const CrossAttentionCost& cost, CheapestPath path);
// Likewise, of making K and V of a layer: 4*G*D*E operations.
double projection_cost(const CrossAttentionCost& cost);
// What the pass takes more without K and V in memory than it would with them.
double loss_without_kept(const CrossAttentionCost& cost);

// Whether keeping K and V pays for a context that will be read by many passes: its bytes fit the budget, and one decode
// step reads fewer bytes (2*G*D < E) or does so much less work (H*E against H*D) that arithmetic would be the bound.
//   bytes = kept_bytes of all cross-attention layers.
bool worth_keeping(const CrossAttentionCost& cost, int64_t bytes, int64_t budget_bytes);

// Bytes of kept K and V: 2 * layers * M * G * D * bytes_per_value (2 for bfloat16).
int64_t kept_bytes(const CrossAttentionCost& cost, int64_t layers, int64_t bytes_per_value);

}  // namespace cepe::model
