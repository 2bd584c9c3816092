#include "model/cost_model.h"

namespace cepe::model {

CheapestPath cheapest(const CrossAttentionCost& cost) {
  if (cost.kept_available) return CheapestPath::kept;
  const int64_t absorbed = cost.heads * cost.encoder_width * cost.query_rows;
  const int64_t projected =
      cost.groups * cost.head_width * cost.encoder_width + cost.heads * cost.head_width * cost.query_rows;
  return absorbed <= projected ? CheapestPath::absorbed : CheapestPath::projected;
}

int64_t kept_bytes(const CrossAttentionCost& cost, int64_t layers, int64_t bytes_per_value) {
  return 2 * layers * cost.context_rows * cost.groups * cost.head_width * bytes_per_value;
}

bool worth_keeping(const CrossAttentionCost& cost, int64_t layers, int64_t bytes_per_value, int64_t budget_bytes,
                   bool cpu) {
  if (kept_bytes(cost, layers, bytes_per_value) > budget_bytes) return false;
  // On a CPU a context row costs H*E multiply-adds absorbed; beyond a few a byte the vector units, not memory, are the
  // bound.
  if (cpu) return true;
  return 2 * cost.groups * cost.head_width < cost.encoder_width;
}

}  // namespace cepe::model
