#include "model/low_rank.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;

// The fused projection's parts, in the order of their rows.
struct Part {
  const char* name;
  int64_t first, rows;
};
std::array<Part, 3> parts_of(const DecoderConfig& config) {
  const int64_t queries = config.heads * config.head_width, keys = config.groups * config.head_width;
  return {{{"q_proj", 0, queries}, {"k_proj", queries, keys}, {"v_proj", queries + keys, keys}}};
}

}  // namespace

void add_low_rank(Decoder& decoder, int64_t rank, double alpha, const std::vector<std::string>& targets,
                  uint64_t seed) {
  const at::NoGradGuard none;
  const auto parts = parts_of(decoder.config);
  for (const std::string& target : targets) {
    if (std::none_of(parts.begin(), parts.end(), [&](const Part& part) { return target == part.name; }))
      throw Error(ErrorCode::invalid_argument, "LoRA target '" + target + "': known are q_proj, k_proj, v_proj");
  }
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const double deviation = 1 / std::sqrt(static_cast<double>(decoder.config.width));
  for (DecoderLayer& layer : decoder.layers) {
    if (layer.attention.interleaved)
      throw Error(ErrorCode::unsupported,
                  "LoRA on family '" + decoder.config.family + "', which interleaves q, k and v");
    layer.attention.query_key_value.low_rank.clear();
    for (const Part& part : parts) {
      if (std::find(targets.begin(), targets.end(), part.name) == targets.end()) continue;
      const at::Tensor down = at::empty({rank, decoder.config.width}, at::kFloat).normal_(0, deviation, generator);
      layer.attention.query_key_value.low_rank.push_back({part.first, down.to(decoder.device()),
                                                          at::zeros({part.rows, rank}).to(decoder.device()),
                                                          alpha / static_cast<double>(rank)});
    }
  }
}

void visit_low_rank(Decoder& decoder, const std::function<void(const std::string&, at::Tensor&)>& visitor) {
  const auto parts = parts_of(decoder.config);
  for (size_t i = 0; i < decoder.layers.size(); ++i) {
    for (LowRank& added : decoder.layers[i].attention.query_key_value.low_rank) {
      const auto part = std::find_if(parts.begin(), parts.end(), [&](const Part& p) { return p.first == added.first; });
      const std::string name = "model.layers." + std::to_string(i) + ".self_attn." + part->name;
      visitor(name + ".lora_A.weight", added.down);
      visitor(name + ".lora_B.weight", added.up);
    }
  }
}

void merge_low_rank(Decoder& decoder) {
  const at::NoGradGuard none;
  for (DecoderLayer& layer : decoder.layers) {
    Linear& linear = layer.attention.query_key_value;
    if (!linear.low_rank.empty() && !linear.weight.defined())
      throw Error(ErrorCode::unsupported, "a LoRA cannot be merged into packed weights; load the decoder dense");
    for (const LowRank& added : linear.low_rank) {
      at::Tensor rows = linear.weight.narrow(0, added.first, added.up.size(0));
      rows.copy_(rows.to(at::kFloat) + at::matmul(added.up.to(at::kFloat), added.down.to(at::kFloat)) * added.scale);
    }
    linear.low_rank.clear();
  }
}

}  // namespace cepe::model
