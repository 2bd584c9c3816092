// Speed of the CPU kernels of ops/ against what memory gives. Prints, beside the time: GB/s of the bytes that a call
// must read, and their ratio to the bandwidth measured here at start.
//   build/release/bin/ops_bench --benchmark_filter=decode
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "ops/activation.h"
#include "ops/int8_context.h"
#include "ops/int8_product.h"
#include "ops/int8_rows.h"
#include "ops/mixed_linear.h"
#include "ops/norm.h"
#include "ops/packed_weight.h"
#include "ops/rotary.h"
#include "ops/row_attention.h"

namespace cepe::ops {
namespace {

// Reads whole vectors, as wide as the processor has them: narrower loads would understate the memory.
__attribute__((target_clones("arch=x86-64-v4", "avx2", "default"), optimize("O3"))) uint64_t mix(const uint64_t* from,
                                                                                                 int64_t words) {
  uint64_t sums[32] = {};
  for (int64_t i = 0; i + 32 <= words; i += 32) {
    for (int lane = 0; lane < 32; ++lane) sums[lane] ^= from[i + lane];
  }
  uint64_t all = 0;
  for (const uint64_t sum : sums) all ^= sum;
  return all;
}

// Bytes a second: the best of some passes over 256 MB by all threads.
double measure_bandwidth() {
  const std::vector<uint64_t> memory(size_t{1} << 25, 1);
  const auto words = static_cast<int64_t>(memory.size());
  double best = 0;
  for (int repeat = 0; repeat < 12; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    at::parallel_for(0, words, 1, [&](int64_t begin, int64_t end) {
      benchmark::DoNotOptimize(mix(memory.data() + begin, end - begin));
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(words) * 8 / seconds);
  }
  return best;
}

double bandwidth() {
  static const double measured = measure_bandwidth();
  return measured;
}

// Multiply-adds in registers alone, on as many chains as hide their latency: what the vector units give at most.
using Vector32 = float __attribute__((vector_size(32)));
using Vector64 = float __attribute__((vector_size(64)));
constexpr int chains = 12;
constexpr int64_t steps = 200000;  // long enough that waking the threads does not count

template <class Vector>
__attribute__((always_inline)) inline float run_chains(float start) {
  std::array<Vector, chains> sums;
  for (int i = 0; i < chains; ++i) sums[static_cast<size_t>(i)] = Vector{} + start * static_cast<float>(i);
  Vector factor = Vector{} + 0.9f, addend = Vector{} + start;
  for (int64_t step = 0; step < steps; ++step) {
    for (Vector& sum : sums) sum = sum * factor + addend;
    asm volatile("" : "+v"(factor), "+v"(addend));  // else the loop could be foreseen
  }
  Vector all = {};
  for (const Vector& sum : sums) all += sum;
  return all[0];
}
__attribute__((target("arch=x86-64-v4"), optimize("O3", "fp-contract=fast"))) float chains_of_16(float start) {
  return run_chains<Vector64>(start);
}
__attribute__((target("arch=x86-64-v3"), optimize("O3", "fp-contract=fast"))) float chains_of_8(float start) {
  return run_chains<Vector32>(start);
}

// The bound of float32 arithmetic, of all threads together.
void multiply_adds(benchmark::State& state) {
  const bool wide = __builtin_cpu_supports("avx512f");
  const int64_t threads = at::get_num_threads();
  for (auto _ : state) {
    at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) benchmark::DoNotOptimize(wide ? chains_of_16(1e-3f) : chains_of_8(1e-3f));
    });
  }
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(threads * steps * chains * (wide ? 16 : 8)),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(multiply_adds)->UseRealTime();

void report(benchmark::State& state, int64_t bytes) {
  using Counter = benchmark::Counter;
  const auto rate = static_cast<double>(bytes);
  state.counters["GB/s"] = Counter(rate / 1e9, Counter::kIsIterationInvariantRate);
  state.counters["of_bandwidth"] = Counter(rate / bandwidth(), Counter::kIsIterationInvariantRate);
}

PackedWeight random_weight(PackedFormat format, int64_t out, int64_t in) {
  const int64_t bytes = in / 32 * (format == PackedFormat::q8_0 ? 34 : format == PackedFormat::q4_1 ? 20 : 18);
  // Every byte below 0x3c: finite scales.
  const at::Tensor blocks = at::randint(0, 0x3c, {out * bytes}, at::kByte);
  return pack_blocks(format, out, in,
                     {static_cast<const std::byte*>(blocks.const_data_ptr()), static_cast<size_t>(blocks.numel())});
}

// All matrices of SmolLM2-135M as its GGUF has them, q, k, v and gate, up fused.
std::vector<PackedWeight> smollm2_weights() {
  std::vector<PackedWeight> weights;
  for (int layer = 0; layer < 30; ++layer) {
    for (const auto& [out, in] : {std::pair{960, 576}, {576, 576}, {3072, 576}, {576, 1536}}) {
      weights.push_back(random_weight(PackedFormat::q4_1, out, in));
    }
  }
  weights.push_back(random_weight(PackedFormat::q8_0, 49152, 576));
  return weights;
}

// The matrix products of one decoded token in each of N rows.
void decode(benchmark::State& state) {
  const int64_t rows = state.range(0);
  static const std::vector<PackedWeight> weights = smollm2_weights();
  int64_t bytes = 0;
  for (const PackedWeight& weight : weights) bytes += packed_bytes(weight);
  const at::Tensor narrow = at::randn({rows, 576});
  const at::Tensor wide = at::randn({rows, 1536});
  for (auto _ : state) {
    for (const PackedWeight& weight : weights) {
      benchmark::DoNotOptimize(packed_linear(weight.in_features == 576 ? narrow : wide, weight));
    }
  }
  report(state, bytes);
}
BENCHMARK(decode)->Arg(1)->Arg(2)->Arg(4)->Arg(8)->Arg(15)->Unit(benchmark::kMillisecond)->UseRealTime();

void packed_product(benchmark::State& state) {
  const int64_t rows = state.range(0), out = state.range(1), in = state.range(2);
  const PackedWeight weight = random_weight(out > 4096 ? PackedFormat::q8_0 : PackedFormat::q4_1, out, in);
  const at::Tensor x = at::randn({rows, in}).to(state.range(3) ? at::kBFloat16 : at::kFloat);
  for (auto _ : state) benchmark::DoNotOptimize(packed_linear(x, weight));
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * static_cast<double>(rows * out * in), benchmark::Counter::kIsIterationInvariantRate);
}
void dense_product(benchmark::State& state) {
  const int64_t rows = state.range(0), out = state.range(1), in = state.range(2);
  const at::ScalarType type = state.range(3) ? at::kBFloat16 : at::kFloat;
  const at::Tensor x = at::randn({rows, in}).to(type), weight = at::randn({in, out}).to(type);
  for (auto _ : state) benchmark::DoNotOptimize(at::mm(x, weight));
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * static_cast<double>(rows * out * in), benchmark::Counter::kIsIterationInvariantRate);
}
void mixed_product(benchmark::State& state) {
  const int64_t rows = state.range(0), out = state.range(1), in = state.range(2);
  const at::Tensor x = at::randn({rows, in}), weight = at::randn({out, in}).to(at::kBFloat16);
  for (auto _ : state) benchmark::DoNotOptimize(mixed_linear(x, weight));
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * static_cast<double>(rows * out * in), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(mixed_product)
    ->ArgNames({"rows", "out", "in"})
    ->ArgsProduct({{1, 4, 16, 64, 1024}, {576, 49152}, {576}})
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "out", "in", "bf16"})->Unit(benchmark::kMicrosecond)->UseRealTime()->MinTime(0.2);
  for (const int64_t bfloat16 : {0, 1}) {
    for (const auto& [out, in] : {std::pair{576, 576}, {1536, 576}, {576, 1536}, {49152, 576}}) {
      for (const int64_t rows : {16, 32, 64, 256, 1024, 4096}) {
        if (rows * out <= 49152 * 1024) bench->Args({rows, out, in, bfloat16});
      }
    }
  }
}
BENCHMARK(packed_product)->Apply(shapes);
BENCHMARK(dense_product)->Apply(shapes);

void attention(benchmark::State& state) {
  const int64_t rows = state.range(0), heads = state.range(1), groups = state.range(2), width = state.range(3);
  const at::ScalarType type = state.range(4) ? at::kBFloat16 : at::kFloat;
  const bool absorbed = groups == 1;
  std::vector<RowPage> pages;
  int64_t bytes = 0;
  for (int64_t row = 0; row < rows; row += 256) {
    const int64_t count = std::min<int64_t>(256, rows - row);
    const at::Tensor keys = at::randn({count, groups, width}).to(type);
    pages.push_back({keys, absorbed ? keys : at::randn({count, groups, width}).to(type)});
    bytes += static_cast<int64_t>(keys.nbytes()) * (absorbed ? 1 : 2);
  }
  const at::Tensor queries = at::randn({heads, groups, width});
  for (auto _ : state) benchmark::DoNotOptimize(row_attention(queries, pages, 0.125).output);
  report(state, bytes);
  state.counters["GFLOP/s"] = benchmark::Counter(4e-9 * static_cast<double>(rows * heads * groups * width),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(attention)
    ->ArgNames({"rows", "R", "G", "D", "bf16"})
    ->Args({1024, 3, 3, 64, 1})
    ->Args({8192, 3, 3, 64, 1})
    ->Args({131072, 3, 3, 64, 1})
    ->Args({131072, 3, 3, 64, 0})
    ->Args({131072, 96, 3, 64, 1})  // a question of 32 tokens
    ->Args({32768, 9, 1, 576, 1})
    ->Args({8192, 144, 1, 576, 1})
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();

// T decoder rows of SmolLM2 (9 heads, 3 of keys and values, D 64) over 13,501 rows of one context: the row kernel
// beside LibTorch's fused attention with the heads of a group folded into rows.
void many_rows(benchmark::State& state) {
  const int64_t tokens = state.range(0), rows = 13501, groups = 3, each = 3, width = 64;
  const at::ScalarType type = state.range(1) ? at::kBFloat16 : at::kFloat;
  const bool fused = state.range(2) != 0;
  const at::Tensor keys = at::randn({rows, groups, width}).to(type), values = at::randn({rows, groups, width}).to(type);
  const at::Tensor queries = at::randn({tokens * each, groups, width});
  const at::Tensor folded = queries.transpose(0, 1).unsqueeze(0).to(type).contiguous();
  const std::array pages = {RowPage{keys, values}};
  for (auto _ : state) {
    if (fused) {
      benchmark::DoNotOptimize(at::scaled_dot_product_attention(
          folded, keys.transpose(0, 1).unsqueeze(0), values.transpose(0, 1).unsqueeze(0), {}, 0.0, false, 0.125));
    } else {
      benchmark::DoNotOptimize(row_attention(queries, pages, 0.125).output);
    }
  }
  state.counters["GFLOP/s"] = benchmark::Counter(4e-9 * static_cast<double>(tokens * rows * groups * each * width),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(many_rows)->ArgNames({"T", "bfloat16", "fused"})->ArgsProduct({{1, 32, 512}, {0, 1}, {0, 1}})->UseRealTime();

// K and V of a layer of the default model from a context of 130,048 tokens: states and weights in 8 bits, or both unpacked
// and multiplied in bfloat16.
void project_context(benchmark::State& state) {
  const int64_t width = state.range(1), outputs = state.range(2), chunks = 508;
  std::vector<at::Tensor> pages;
  for (int64_t i = 0; i < chunks; ++i) pages.push_back(int8_rows(at::randn({256, width})));
  const PackedWeight weight = pack_int8_rows(at::randint(-127, 128, {outputs, width}, at::kChar), at::rand({outputs}));
  const std::array weights = {WeightReference(weight)};
  const at::Tensor dense = at::randn({chunks * 256, width}).to(at::kBFloat16);
  const at::Tensor columns = unpack(weight, at::kBFloat16).t();
  for (auto _ : state) {
    if (state.range(0)) {
      benchmark::DoNotOptimize(int8_product(pages, weights));
    } else {
      benchmark::DoNotOptimize(at::mm(dense, columns));
    }
  }
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(chunks * 256 * width * outputs),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(project_context)
    ->ArgNames({"int8", "in", "out"})
    ->ArgsProduct({{0, 1}, {576}, {384}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

// K and V of that layer in 8 bits, made from states in 8 bits, and R query rows a group over them.
struct Int8Bench {
  std::vector<at::Tensor> pages;
  at::Tensor keys = at::randn({192, 576}), values = at::randn({192, 576});

  explicit Int8Bench(int64_t chunks = 508) {
    for (int64_t i = 0; i < chunks; ++i) pages.push_back(int8_rows(at::randn({256, 576})));
  }
  Int8Context made() const { return project_int8(pages, keys, values, 3); }
};
void int8_context_made(benchmark::State& state) {
  const Int8Bench bench;
  for (auto _ : state) benchmark::DoNotOptimize(bench.made());
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * 508 * 256 * 576 * 384, benchmark::Counter::kIsIterationInvariantRate);
}
void int8_context_read(benchmark::State& state) {
  const Int8Bench bench(state.range(1));
  std::vector<Int8Context> layers;
  for (int i = 0; i < 6; ++i) layers.push_back(bench.made());
  const int64_t rows = state.range(0);
  const at::Tensor queries = at::randn({rows, 3, 64});
  size_t layer = 0;
  for (auto _ : state) benchmark::DoNotOptimize(int8_attention(queries, layers[layer++ % layers.size()], 0.002));
  const auto each = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["GFLOP/s"] = benchmark::Counter(4e-9 * 256 * 3 * 64 * static_cast<double>(rows * state.range(1)), each);
  report(state, layers.front().bytes());
}
BENCHMARK(int8_context_made)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(int8_context_read)
    ->ArgNames({"R", "chunks"})
    ->ArgsProduct({{3, 24, 96}, {8, 508}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

// The small operations of one decoded token of SmolLM2.
void small_rms_norm(benchmark::State& state) {
  const at::NoGradGuard no_gradient;
  const at::ScalarType type = state.range(0) ? at::kBFloat16 : at::kFloat;
  const at::Tensor x = at::randn({1, 576}).to(type), weight = at::ones({576}).to(type);
  for (auto _ : state) benchmark::DoNotOptimize(rms_norm(x, weight, 1e-5));
}
void small_layer_norm(benchmark::State& state) {
  const at::NoGradGuard no_gradient;
  const at::ScalarType type = state.range(0) ? at::kBFloat16 : at::kFloat;
  const at::Tensor x = at::randn({1, 576}).to(type), weight = at::ones({576}).to(type);
  for (auto _ : state) benchmark::DoNotOptimize(layer_norm(x, weight, weight, 1e-5));
}
void small_rotate(benchmark::State& state) {
  const at::NoGradGuard no_gradient;
  const at::Tensor x = at::randn({1, 9, 64}).to(state.range(0) ? at::kBFloat16 : at::kFloat);
  const at::Tensor cos = at::rand({1, 32}), sin = at::rand({1, 32});
  for (auto _ : state) benchmark::DoNotOptimize(rotate(x, cos, sin));
}
void small_gated(benchmark::State& state) {
  const at::NoGradGuard no_gradient;
  const at::Tensor x = at::randn({1, 3072}).to(state.range(0) ? at::kBFloat16 : at::kFloat);
  for (auto _ : state) benchmark::DoNotOptimize(gated(Activation::silu, x));
}
BENCHMARK(small_rms_norm)->Arg(0)->Arg(1)->ArgName("bf16");
BENCHMARK(small_layer_norm)->Arg(0)->Arg(1)->ArgName("bf16");
BENCHMARK(small_rotate)->Arg(0)->Arg(1)->ArgName("bf16");
BENCHMARK(small_gated)->Arg(0)->Arg(1)->ArgName("bf16");

}  // namespace

double measured_bandwidth() { return bandwidth(); }

}  // namespace cepe::ops

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  std::printf("bandwidth of memory with %d threads: %.1f GB/s\n", at::get_num_threads(),
              cepe::ops::measured_bandwidth() / 1e9);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
