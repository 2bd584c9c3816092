#include "cli/measure.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <limits>

#include "ops/device.h"

namespace cepe::cli {

Clock::Clock(c10::Device device) : device_(device) {
  ops::synchronise(device_);
  start_ = std::chrono::steady_clock::now();
}

double Clock::seconds() const {
  ops::synchronise(device_);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

double best_seconds(c10::Device device, const std::function<void()>& work) {
  double best = std::numeric_limits<double>::infinity();
  for (int pass = 0; pass < 6; ++pass) {
    const Clock clock(device);
    work();
    best = std::min(best, clock.seconds());
  }
  return best;
}

double memory_bandwidth(c10::Device device) {
  const int64_t values = int64_t{device.is_cpu() ? 64 : 128} << 20;  // 256 or 512 MiB of float32
  const at::Tensor table = at::ones({values}, at::TensorOptions(device).dtype(at::kFloat));
  const auto bytes = static_cast<double>(table.nbytes());
  if (device.is_cpu()) return bytes / best_seconds(device, [&] { at::sum(table); });
  at::Tensor copy = at::empty_like(table);
  constexpr int copies = 8;
  return 2 * copies * bytes / best_seconds(device, [&] {
           for (int i = 0; i < copies; ++i) copy.copy_(table);
         });
}

double product_rate(c10::TensorOptions options) {
  const int64_t side = options.device().is_cpu() ? 1024 : 8192;
  // Random numbers: a product of ones takes less power, and a GPU then runs faster than it ever does at work.
  const auto random = [&] { return at::empty({side, side}, options).normal_(); };
  const at::Tensor square = random(), other = random();
  at::Tensor product = at::empty_like(square);
  const auto edge = static_cast<double>(side);
  return 2 * edge * edge * edge / best_seconds(options.device(), [&] { at::matmul_out(product, square, other); });
}

int64_t weight_bytes_a_token(const model::CepeModel& model, bool has_context, bool absorbed) {
  int64_t bytes = model::weight_bytes(model.decoder);
  if (!model.decoder.config.tied) bytes -= model.decoder.embedding.bytes();
  if (!has_context) return bytes;
  for (const auto& block : model.adapter->cross_attention) {
    if (!block) continue;
    bytes += block->query.bytes() + block->output.bytes();
    if (absorbed) bytes += block->key.bytes() + block->value.bytes();
  }
  return bytes;
}

int64_t context_bytes_a_token(const model::CepeModel& model, const model::ContextStates& context) {
  int64_t bytes = 0;
  for (const auto& kept : context.kept) bytes += kept.bytes();
  if (bytes > 0) return bytes;
  int64_t layers = 0;
  for (const model::CrossAttention* block : model::cross_attention_blocks(model)) layers += block != nullptr;
  for (const at::Tensor& page : context.pages) bytes += static_cast<int64_t>(page.nbytes()) * layers;
  return bytes;
}

}  // namespace cepe::cli
