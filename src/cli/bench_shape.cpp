#include "cli/bench_shape.h"

#include <ATen/core/grad_mode.h>

#include <cstdio>

#include "base/error.h"
#include "base/memory.h"
#include "cli/runtime.h"
#include "cli/shape_bench.h"
#include "model/quantise.h"

namespace cepe::cli {

using base::Json;

namespace {

void check_dtype(const std::string& dtype, at::Device device) {
  const std::string drawn = device.is_cpu() ? "float32" : "bfloat16";
  if ((dtype != "float32" && dtype != "bfloat16") || dtype == drawn) return;
  throw base::Error(base::ErrorCode::invalid_argument, "--dtype " + dtype + ": with --shape, weights on " +
                                                           device.str() + " are " + drawn +
                                                           ", or quantised to fp8, int8 or int4");
}

}  // namespace

Json measure_shape(const BenchShapeOptions& options, const CommonOptions& common) {
  const at::NoGradGuard none;
  const at::Device device = open_device(common.device);
  check_dtype(common.dtype, device);
  ShapeBench bench(options, device, model::quantised_format(weight_type(common.dtype)));
  bench.encode(bench.tokens(ShapeBench::chunks_at_once * ShapeBench::chunk));  // loads kernels
  if (bench.wants("encode")) measure_encoding(bench);
  if (bench.wants("forward")) measure_forward(bench);
  if (bench.wants("first")) measure_first_tokens(bench);
  if (bench.wants("steps")) measure_steps(bench);
  if (bench.wants("batches") && options.sequences > 1) measure_batches(bench);
  return {{"shape", bench.shape.name},
          {"device", bench.device().str()},
          {"tflops", bench.operations_a_second / 1e12},
          {"memory_bandwidth_bytes_per_second", bench.bytes_a_second},
          {"rows", bench.rows}};
}

std::string shape_text(const Json& result) {
  char line[200];
  std::snprintf(line, sizeof line,
                "%s on %s: products %.4g TFLOP/s, copies %.0f GB/s\n%-52s %9s %10s %10s %7s %9s %10s\n",
                result.at("shape").get<std::string>().c_str(), result.at("device").get<std::string>().c_str(),
                result.at("tflops").get<double>(), result.at("memory_bandwidth_bytes_per_second").get<double>() / 1e9,
                "what", "context", "seconds", "bound", "ratio", "tokens/s", "GPU memory");
  std::string text = line;
  for (const Json& row : result.at("rows")) {
    const std::string peak =
        row.contains("peak_memory_bytes") ? base::human_bytes(row.at("peak_memory_bytes").get<int64_t>()) : "-";
    const double seconds = row.at("seconds").get<double>();
    const std::string what = row.at("what");
    // Of a step the tokens that it makes, of the encoder those that it reads; the others read and make at once.
    const auto tokens = row.at(what == "encode" ? "context_tokens" : "sequences").get<double>();
    const bool has_rate = what == "encode" || what.starts_with("a token") || tokens > 1;
    char rate[32] = "-";
    if (has_rate) std::snprintf(rate, sizeof rate, "%.1f", tokens / seconds);
    std::snprintf(line, sizeof line, "%-52s %9lld %10.5f %10.5f %7.3f %9s %10s\n", what.c_str(),
                  static_cast<long long>(row.at("context_tokens").get<int64_t>()), seconds,
                  row.at("bound_seconds").get<double>(), row.at("ratio").get<double>(), rate, peak.c_str());
    text += line;
  }
  return text;
}

}  // namespace cepe::cli
