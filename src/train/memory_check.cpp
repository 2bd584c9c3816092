#include "train/memory_check.h"

#include <algorithm>
#include <initializer_list>
#include <limits>

#include "base/error.h"
#include "base/memory.h"

namespace cepe::train {
namespace {

constexpr int64_t float_bytes = 4;

// A product of sizes that somebody wrote down; where it is beyond all memory, the most that an int64_t says.
int64_t product(std::initializer_list<int64_t> factors) {
  int64_t all = 1;
  for (const int64_t factor : factors)
    if (__builtin_mul_overflow(all, factor, &all)) return std::numeric_limits<int64_t>::max();
  return all;
}

void require(const std::string& what, int64_t needed, int64_t available, const std::string& remedy) {
  if (available <= 0 || needed <= available) return;  // 0: not known
  throw base::Error(base::ErrorCode::out_of_memory, what + base::human_bytes(needed) + " of memory; " +
                                                        base::human_bytes(available) + " are available. " + remedy);
}

bool trains(const Trainee& trainee, Parameter::Group group) {
  return std::any_of(trainee.parameters.begin(), trainee.parameters.end(),
                     [&](const Parameter& parameter) { return parameter.group == group; });
}

// The layers through which gradients flow: all where the decoder or a LoRA is trained, else those behind the first
// cross-attention.
int64_t layers_with_gradients(const Trainee& trainee, const PhaseSettings& phase) {
  const auto layers = static_cast<int64_t>(trainee.model.decoder.layers.size());
  if (trains(trainee, Parameter::Group::decoder) || trains(trainee, Parameter::Group::low_rank)) return layers;
  if (!trainee.model.adapter || phase.no_context >= 1) return 0;
  const auto& blocks = trainee.model.adapter->cross_attention;
  const auto first = std::find_if(blocks.begin(), blocks.end(), [](const auto& block) { return block.has_value(); });
  return std::max<int64_t>(0, blocks.end() - first - 1);
}

}  // namespace

int64_t random_decoder_bytes(const model::DecoderConfig& config) {
  const int64_t queries = config.heads * config.head_width, keys = config.groups * config.head_width;
  const int64_t attention = config.width * (2 * queries + 2 * keys), norms = 2 * config.width;
  const int64_t layer = attention + 3 * config.width * config.feed_forward + norms;
  const int64_t tables = (config.tied ? 1 : 2) * config.vocabulary * config.width;
  return float_bytes * (tables + config.layers * layer + config.width);
}

int64_t optimiser_bytes(const std::vector<Parameter>& parameters, const OptimiserSettings& settings) {
  int64_t copies = 2;                      // sums and momenta
  if (settings.kind == "adamw") ++copies;  // Muon keeps none for its matrices
  if (settings.master_weights) ++copies;
  return count(parameters) * copies * float_bytes;
}

int64_t micro_batch_bytes(const Trainee& trainee, const Recipe& recipe, const PhaseSettings& phase) {
  if (trainee.masked) return 0;
  const model::DecoderConfig& config = trainee.model.decoder.config;
  const int64_t samples = phase.micro_batch > 0 ? phase.micro_batch : phase.batch;
  int64_t kept = config.width;  // a layer's input; the rest may be made anew from it
  if (!recipe.recompute)
    kept += (config.heads + 2 * config.groups) * config.head_width + (config.gated ? 2 : 1) * config.feed_forward;
  const auto value_bytes = static_cast<int64_t>(at::elementSize(trainee.model.decoder.activation_type));
  return product(
      {samples, phase.windows, phase.decoder_tokens, layers_with_gradients(trainee, phase), kept, value_bytes});
}

void check_decoder_memory(const model::DecoderConfig& config, const std::string& path, int64_t available) {
  require("decoder.config " + path + ": its weights need ", random_decoder_bytes(config), available,
          "Choose smaller sizes");
}

void check_optimiser_memory(const Trainee& trainee, const Recipe& recipe, int64_t available) {
  require("optimiser: the states of " + std::to_string(count(trainee.parameters)) + " trained weights need ",
          optimiser_bytes(trainee.parameters, recipe.optimiser), available,
          "Train fewer parts (trainable), or a smaller model");
}

void check_micro_batch_memory(const Trainee& trainee, const Recipe& recipe, int64_t available) {
  for (size_t i = 0; i < recipe.phases.size(); ++i) {
    const std::string phase = "phases." + std::to_string(i);
    require(phase + ": training by one micro-batch needs at least ",
            micro_batch_bytes(trainee, recipe, recipe.phases[i]), available,
            "Lower " + phase + ".micro_batch" + (recipe.recompute ? "" : " or set recompute=true"));
  }
}

}  // namespace cepe::train
