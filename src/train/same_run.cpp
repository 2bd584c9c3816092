#include "train/same_run.h"

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"

namespace cepe::train {
namespace {

using base::Error;
using base::ErrorCode;

std::string what_is_learned(Recipe recipe) {
  recipe.output = "";
  recipe.checkpoint = {};
  recipe.validation = {};
  recipe.peak_tflops = 0;
  recipe.log_steps = 1;
  return print_recipe(recipe, false);
}

// Both ends and the middle of each tensor: as good as all of it, where whole models are exchanged, and read at once.
std::string digest_of_decoder(const Trainee& trainee) {
  if (!trainee.source && trainee.decoder_config.is_null()) return "";
  constexpr size_t piece = 256;
  base::Sha256 hash;
  const base::Json& config = trainee.source ? trainee.source->config : trainee.decoder_config;
  hash.update_text(config.dump(-1, ' ', false, base::Json::error_handler_t::replace));
  if (!trainee.source) return base::to_hex(hash.finish());
  for (const std::string& name : trainee.source->checkpoint.names()) {
    const formats::TensorView tensor = trainee.source->checkpoint.at(name);
    hash.update_text(name);
    hash.update_text(formats::name_of(tensor.type));
    hash.update_values(std::span(tensor.shape));
    const size_t size = tensor.bytes.size(), taken = std::min(piece, size);
    for (const size_t first : {size_t{0}, (size - taken) / 2, size - taken})
      hash.update(tensor.bytes.subspan(first, taken));
  }
  return base::to_hex(hash.finish());
}

void check_same_recipe(const std::string& before, const std::string& now, const std::string& folder) {
  if (before == now) return;
  size_t start = 0;
  for (size_t i = 0; i < std::min(before.size(), now.size()) && before[i] == now[i]; ++i)
    if (before[i] == '\n') start = i + 1;
  const auto line = [&](const std::string& text) { return text.substr(start, text.find('\n', start) - start); };
  throw Error(ErrorCode::invalid_argument, folder + ": holds a run with another recipe (there '" + line(before) +
                                               "', now '" + line(now) + "'); choose another output folder");
}

// Steps on other data, or over another decoder, would be of neither run.
void refuse_or_warn(const std::string& what, const TrainOptions& options) {
  if (!options.allow_mismatch) {
    throw Error(ErrorCode::mismatch,
                what + "; choose another output folder, or pass --allow-mismatch to go on with it all the same");
  }
  base::warn(what);
}

void check_same_data(const std::string& before, const std::string& now, const Recipe& recipe,
                     const TrainOptions& options) {
  if (before == now || options.export_only) return;
  if (before.empty()) {
    base::warn(recipe.output +
               ": the checkpoint is of an earlier version and does not say on which data; whether it "
               "is still the same is not known");
    return;
  }
  refuse_or_warn(recipe.output + ": the run was trained on other data than now stands in " +
                     (recipe.data.prepared() ? "the folders of data" : "data.corpus " + recipe.data.corpus),
                 options);
}

void check_same_decoder(const std::string& before, const std::string& now, const Recipe& recipe,
                        const TrainOptions& options) {
  if (before == now || before.empty()) return;
  const DecoderSettings& decoder = recipe.decoder;
  std::string name = decoder.config.empty() ? "decoder.model " + decoder.model : "decoder.config " + decoder.config;
  if (decoder.config.empty() && decoder.model.empty()) name = "the default decoder";
  refuse_or_warn(recipe.output + ": the run was trained over another decoder than is now " + name, options);
}

// A copy that a run made, not a recipe that somebody wrote: their words and comments would be lost.
bool is_a_runs_copy(const base::Path& file, const std::string& content) {
  std::error_code none;
  if (!std::filesystem::exists(file.parent_path() / "metrics.jsonl", none)) return false;
  try {
    return print_recipe(read_recipe(content, file.string(), {}), false) == content;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

RunIdentity identity_of_run(const Recipe& recipe, const std::string& data, const Trainee& trainee) {
  return {what_is_learned(recipe), data, digest_of_decoder(trainee)};
}

void check_same_run(const base::Json& state, const RunIdentity& now, const Recipe& recipe,
                    const TrainOptions& options) {
  check_same_recipe(state.at("recipe").get<std::string>(), now.recipe, recipe.output);
  check_same_data(state.value("data", ""), now.data, recipe, options);
  check_same_decoder(state.value("decoder", ""), now.decoder, recipe, options);
}

void check_is_free(const Recipe& recipe) {
  const base::Path folder = recipe.output, copy = folder / "recipe.yaml", result = folder / "result";
  const auto refuse = [](const base::Path& path) {
    throw Error(ErrorCode::invalid_argument,
                path.string() + ": is there, and not of this run; move it away or choose another output folder");
  };
  std::error_code none;
  if (std::filesystem::exists(result, none)) refuse(result);
  if (!std::filesystem::exists(copy, none)) return;
  const std::string content = base::read_file(copy, size_t{1} << 20);
  if (content != print_recipe(recipe, false) && !is_a_runs_copy(copy, content)) refuse(copy);
}

}  // namespace cepe::train
