// cepe train: a recipe, from a corpus to an adapter.
#include <cmath>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/runtime.h"
#include "cli/standard_streams.h"
#include "ops/device.h"
#include "train/trainer.h"

namespace cepe::cli {
namespace {

struct TrainCommand {
  std::string recipe;
  std::vector<std::string> overrides;
  double stop_after = 0;
  int replicas = 1;
  bool print = false, export_only = false, allow_mismatch = false;
};

c10::Device open_replica(const std::string& name, int replicas) {
  try {
    return ops::open_device(name);
  } catch (const base::Error& error) {
    throw base::Error(error.code(), "--replicas " + std::to_string(replicas) + ": " + error.what());
  }
}

// The first GPUs for replicas, one each; a CPU is shared by all.
std::vector<c10::Device> open_devices(const std::string& name, int replicas) {
  std::vector<c10::Device> devices = {open_device(name)};
  const int first = devices.front().is_cuda() ? devices.front().index() : 0;
  for (int next = 1; next < replicas; ++next)
    devices.push_back(devices.front().is_cuda() ? open_replica("cuda:" + std::to_string(first + next), replicas)
                                                : c10::kCPU);
  return devices;
}

// What no option may say beside the recipe, or silently not do.
void check_options(const TrainCommand& command, const CommonOptions& common) {
  using base::Error;
  using base::ErrorCode;
  if (common.dtype != "auto")
    throw Error(ErrorCode::invalid_argument, "--dtype " + common.dtype + ": here the recipe says it: decoder.dtype=" +
                                                 (common.dtype == "float32" ? "float32" : "bfloat16"));
  if (command.export_only && command.print)
    throw Error(ErrorCode::invalid_argument, "--export and --print-recipe: give one of them");
  if (command.export_only && command.stop_after > 0)
    throw Error(ErrorCode::invalid_argument, "--export trains nothing that --stop-after could stop: give one of them");
  if (std::isnan(command.stop_after)) throw Error(ErrorCode::invalid_argument, "--stop-after nan: expected seconds");
}

void run_train(const TrainCommand& command, const CommonOptions& common) {
  check_options(command, common);
  const base::Path path = command.recipe;
  const train::Recipe recipe =
      train::read_recipe(base::read_file(path, size_t{1} << 20), path.string(), command.overrides);
  if (command.print) {
    write_output(train::print_recipe(recipe, true));
    return;
  }
  train::TrainOptions options;
  options.cache = common.cache();
  options.devices = open_devices(common.device, command.replicas);
  options.stop_after_seconds = command.stop_after;
  options.export_only = command.export_only;
  options.allow_mismatch = command.allow_mismatch;
  if (const c10::Device first = options.devices.front(); first.is_cuda())
    options.device_memory = [first] { return ops::peak_device_bytes(first).value_or(0); };
  const train::TrainResult result = train::train(recipe, options);
  if (!result.finished) return;  // at which step, it has said
  const base::Path output = recipe.output;
  write_output((output / "result").string() + "\n");
}

}  // namespace

void add_train(CLI::App& program, CommonOptions& common) {
  const auto command = std::make_shared<TrainCommand>();
  CLI::App* app = add_command(program, "train", "Train an adapter, an encoder or a decoder by a recipe",
                              "cepe train recipes/tiny/decoder.yaml data.corpus=my-corpus output=my-run", common,
                              [command, &common] { run_train(*command, common); });
  app->add_option("recipe", command->recipe, "YAML file (docs/training.md; recipes/ has some)")
      ->check(not_empty())
      ->required();
  app->add_option("settings", command->overrides, "fields set anew: optimiser.rate=1e-4 phases.0.steps=100 ...");
  app->add_option("--stop-after", command->stop_after,
                  "seconds; then a checkpoint is saved, and the same command goes on from there; 0: never")
      ->check(CLI::Range(0.0, 1e9))
      ->capture_default_str();
  app->add_option("--replicas", command->replicas,
                  "copies of the model that share each step's micro-batches, on as many GPUs from --device on; what is "
                  "learned does not depend on it beyond rounding")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app->add_flag("--export", command->export_only,
                "write result/ from the newest checkpoint of a run that goes on, and train nothing");
  app->add_flag("--allow-mismatch", command->allow_mismatch,
                "take a corpus of another tokenizer than the decoder's, or other data or another decoder than the run "
                "began with");
  app->get_option("--dtype")->description("not here: the recipe says it (decoder.dtype=float32 or bfloat16)");
  app->add_flag("--print-recipe", command->print, "every field with its value and what it is, and nothing else");
}

}  // namespace cepe::cli
