#include "model/cost_model.h"

#include <algorithm>

namespace cepe::model {
namespace {

double time_of(const CrossAttentionCost& cost, int64_t bytes, int64_t operations) {
  const double operations_a_byte = cost.cpu ? 6 : 128;
  return std::max(static_cast<double>(bytes), static_cast<double>(operations) / operations_a_byte);
}

}  // namespace

double projection_cost(const CrossAttentionCost& cost) {
  const int64_t columns = cost.groups * cost.head_width;
  return time_of(cost, 2 * cost.encoder_width + 4 * columns, 4 * columns * cost.encoder_width);
}

double pass_cost(const CrossAttentionCost& cost, CheapestPath path) {
  const int64_t rows = cost.heads * cost.query_rows, kept = 4 * rows * cost.head_width;
  switch (path) {
    case CheapestPath::absorbed:
      return time_of(cost, 2 * cost.encoder_width, 4 * rows * cost.encoder_width);
    case CheapestPath::projected:
      return projection_cost(cost) + time_of(cost, 0, kept);
    case CheapestPath::kept:
      break;
  }
  return time_of(cost, 4 * cost.groups * cost.head_width, kept);
}

double loss_without_kept(const CrossAttentionCost& cost) {
  CrossAttentionCost without = cost;
  without.kept_available = false;
  return std::max(0.0, pass_cost(cost, cheapest(without)) - pass_cost(cost, CheapestPath::kept));
}

CheapestPath cheapest(const CrossAttentionCost& cost) {
  if (cost.kept_available &&
      (cost.cpu || pass_cost(cost, CheapestPath::kept) <= pass_cost(cost, CheapestPath::absorbed)))
    return CheapestPath::kept;
  const int64_t absorbed = cost.heads * cost.encoder_width * cost.query_rows;
  const int64_t projected =
      cost.groups * cost.head_width * cost.encoder_width + cost.heads * cost.head_width * cost.query_rows;
  return absorbed <= projected ? CheapestPath::absorbed : CheapestPath::projected;
}

int64_t kept_bytes(const CrossAttentionCost& cost, int64_t layers, int64_t bytes_per_value) {
  return 2 * layers * cost.context_rows * cost.groups * cost.head_width * bytes_per_value;
}

bool worth_keeping(const CrossAttentionCost& cost, int64_t bytes, int64_t budget_bytes) {
  if (bytes > budget_bytes) return false;
  // On a CPU a context row costs H*E multiply-adds absorbed; beyond a few a byte the vector units, not memory, are the
  // bound.
  if (cost.cpu) return true;
  return 2 * cost.groups * cost.head_width < cost.encoder_width;
}

}  // namespace cepe::model
