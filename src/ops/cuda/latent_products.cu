// Which runs are two products, and their launches.
#include <algorithm>

#include "ops/cuda/hopper_launch.h"
#include "ops/cuda/latent_products.cuh"
#include "ops/cuda/latent_products.h"

namespace cepe::ops::cuda {
namespace {

constexpr HopperShape score_shape = {2, ScoreResult::Plan::threads, ScoreResult::Plan::shared_bytes};
constexpr HopperShape value_shape = {2, ValuePlan::threads, ValuePlan::shared_bytes};

int64_t quotient_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

LatentProducts shape_of(const PagedAttentionRun& run, int parts) {
  const int64_t tiles_per_page = quotient_up(run.page_rows, key_tile);
  return {.row_pairs = static_cast<int>(quotient_up(run.query_rows, 2 * ValuePlan::rows)),
          .tiles_per_page = static_cast<int>(tiles_per_page),
          .columns = static_cast<int>(run.width / ValuePlan::columns),
          .blocks = static_cast<int>(run.width / box_columns),
          .room = static_cast<int>(run.pages * tiles_per_page),
          .exponents = nullptr,
          .sums = nullptr,
          .parts = parts,
          .given = nullptr,
          .partial = nullptr};
}

// The exponentials [padded query rows, columns], and behind them what warpgroups give one another, the two tables, and
// which of it is given.
struct Room {
  int64_t rows, tiles, given;
  int64_t columns() const { return tiles * key_tile; }
  int64_t exponentials() const { return rows * columns() * 2; }
  int64_t partial() const {
    return given * HalfSums::all * ValuePlan::group_threads * static_cast<int64_t>(sizeof(uint4));
  }
  int64_t table() const { return rows * tiles * static_cast<int64_t>(sizeof(float)); }
  int64_t bytes() const { return exponentials() + partial() + 2 * table() + given * 4; }
};

Room room_of(const LatentProducts& shape) {
  return {int64_t{shape.row_pairs} * 2 * ValuePlan::rows, shape.room, shape.all_given()};
}

// Of the second product: those that meet take their parts in the same round.
int value_clusters(int clusters, int parts) { return clusters / parts * parts; }

// The part of the tensor cores' time that the second product has something to do: its units come in whole rounds, its
// rows in pairs of tiles.
double share_at_work(const PagedAttentionRun& run, int clusters, int parts) {
  const LatentProducts shape = shape_of(run, parts);
  const int64_t units = int64_t{shape.row_pairs} * shape.columns * parts, at_once = value_clusters(clusters, parts);
  if (at_once == 0) return 0;
  const double of_rounds = static_cast<double>(units) / static_cast<double>(quotient_up(units, at_once) * clusters);
  return of_rounds * static_cast<double>(run.query_rows) / static_cast<double>(room_of(shape).rows);
}

// Two where one leaves too much of it unused.
int best_parts(const PagedAttentionRun& run, int clusters) {
  constexpr double worth_it = 1.1;
  return share_at_work(run, clusters, 2) > worth_it * share_at_work(run, clusters, 1) ? 2 : 1;
}

}  // namespace

int product_clusters(const PagedAttentionRun& run) {
  constexpr int64_t least_query_rows = 1024, least_rows = 4096, most_bytes = int64_t{1} << 30;
  if (!run.same || run.int8_pages || !run.bfloat16_queries || run.groups != 1 || run.sequences != 1 ||
      (run.width != 512 && run.width != 1024) || run.key_stride <= 0 || run.key_stride % 8 != 0)
    return 0;
  if (run.query_rows < least_query_rows || run.pages * run.page_rows < least_rows) return 0;
  const int clusters = std::min(known_clusters<ScoreResult>(score_latent_rows, score_shape, run.device),
                                known_clusters<ValuePlan>(add_latent_rows, value_shape, run.device));
  // What latent_hopper.cuh gives: 0.53 of the peak at width 1024, 0.62 at 512.
  const double least = run.width == 1024 ? 0.62 : 0.85;
  if (clusters == 0) return 0;
  const int parts = best_parts(run, clusters);
  const bool has_room = room_of(shape_of(run, parts)).bytes() <= most_bytes;
  return has_room && share_at_work(run, clusters, parts) >= least ? clusters : 0;
}

int64_t product_workspace(const PagedAttentionRun& run, int clusters) {
  return room_of(shape_of(run, best_parts(run, clusters))).bytes();
}

cudaError_t attend_by_products(const PagedAttentionRun& run, int clusters, cudaStream_t stream) {
  LatentProducts shape = shape_of(run, best_parts(run, clusters));
  const Room room = room_of(shape);
  auto* behind = static_cast<unsigned char*>(run.workspace) + room.exponentials();
  shape.partial = reinterpret_cast<uint4*>(behind);
  shape.exponents = reinterpret_cast<float*>(behind + room.partial());
  shape.sums = reinterpret_cast<float*>(behind + room.partial() + room.table());
  shape.given = reinterpret_cast<int*>(behind + room.partial() + 2 * room.table());
  CUtensorMap queries, states, values, exponentials;
  if (!make_matrix_map(run.queries, run.query_rows, run.width, ValuePlan::rows, queries) ||
      !make_states_map(run, box_columns * 2, 1, states, key_half) ||
      !make_states_map(run, box_columns * 2, 2, values, ValuePlan::value_depth) ||
      !make_matrix_map(run.workspace, room.rows, room.columns(), ValuePlan::rows, exponentials))
    return cudaErrorNotSupported;
  // Each cluster keeps its query rows, if there are clusters for all.
  const int scorers = shape.row_pairs <= clusters ? clusters / shape.row_pairs * shape.row_pairs : clusters;
  HopperAttributes attributes;
  cudaLaunchConfig_t config = hopper_configuration(score_shape, scorers, attributes, stream);
  const cudaError_t error = cudaLaunchKernelEx(&config, score_latent_rows, run, shape, queries, states, exponentials);
  if (error != cudaSuccess) return error;
  config = hopper_configuration(value_shape, value_clusters(clusters, shape.parts), attributes, stream);
  return cudaLaunchKernelEx(&config, add_latent_rows, run, shape, exponentials, values);
}

}  // namespace cepe::ops::cuda
