// cepe adapter: adapters of one's own.
#include "model/adapter.h"

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/parse_values.h"
#include "cli/commands.h"
#include "cli/output_folder.h"
#include "cli/runtime.h"
#include "cli/standard_streams.h"
#include "model/initialise.h"
#include "model/locate.h"

namespace cepe::cli {
namespace {

using base::Error;
using base::ErrorCode;
using base::Path;

struct InitOptions {
  std::string model;
  model::AdapterShape shape;
  std::string layers;
  std::string start = "scaled";
  std::string output;
  bool int8 = false, force = false;
};

void initialise(const InitOptions& options, const CommonOptions& common) {
  if (common.dtype == "fp8" || common.dtype == "int8" || common.dtype == "int4") {
    throw Error(ErrorCode::invalid_argument,
                "--dtype " + common.dtype +
                    ": an adapter begins as a copy of the model's weights, which would be rounded; give --dtype " +
                    common.dtype + " to the command that uses it, or --int8 to keep it in 8 bits");
  }
  model::AdapterShape shape = options.shape;
  shape.start = model::cross_attention_start(options.start);
  if (!options.layers.empty())
    shape.cross_attention_layers = base::parse_layers(options.layers, "--cross-attention-layers");
  const Path output = options.output, path = model::locate_model(options.model, common.cache());
  check_is_another(output, path);
  OutputFolder folder(output, options.force, "--output");
  const model::ModelSource source = model::open_model(path);
  if (options.layers.empty()) {
    for (int64_t layer = 0; layer < source.decoder.layers; ++layer) shape.cross_attention_layers.push_back(layer);
  }
  const model::LoadOptions load = load_options({}, common);
  const model::Decoder decoder = model::load_decoder(source, load);
  const model::Adapter adapter = model::initialise_adapter(decoder, shape);
  model::save_adapter(output, adapter, decoder, {options.int8, false, path.filename().string()});
  folder.keep();
  base::notice("an untrained adapter for " + path.filename().string() + " is in " + output.string());
  write_output(output.string() + "\n");
}

struct QuantiseOptions {
  std::string adapter, model, output;
  bool force = false;
};

void quantise(const QuantiseOptions& options, const CommonOptions& common) {
  if (common.dtype != "auto") {
    throw Error(ErrorCode::invalid_argument,
                "--dtype " + common.dtype +
                    ": an adapter is kept in 8 bits a weight here, with a scale for each row; "
                    "leave --dtype out, or give it to the command that uses the adapter");
  }
  const Path output = options.output, path = model::locate_model(options.model, common.cache());
  check_is_another(output, path);
  check_is_another(output, options.adapter);
  OutputFolder folder(output, options.force, "--output");
  const model::LoadOptions dense = {.type = model::WeightType::float32};
  const model::Decoder decoder = model::load_decoder(model::open_model(path), dense);
  const model::Adapter adapter = model::load_adapter(options.adapter, decoder, dense);
  const bool trained = model::read_adapter_config(options.adapter).trained;
  model::save_adapter(output, adapter, decoder, {true, trained, path.filename().string()});
  folder.keep();
  write_output(output.string() + "\n");
}

}  // namespace

void add_adapter(CLI::App& program, CommonOptions& common) {
  const std::string example =
      "cepe adapter init --encoder-layers 6 --cross-attention-layers 8-29 --output smollm2-adapter";
  CLI::App* group =
      add_command_group(program, "adapter", "Adapters: encoder and cross-attention for a decoder", example, common);
  group->require_subcommand(1);
  const auto options = std::make_shared<InitOptions>();
  CLI::App* init =
      add_command(*group, "init", "Make an untrained adapter, to be trained or to measure speed and memory", example,
                  common, [options, &common] { initialise(*options, common); });
  init->add_option("-m,--model", options->model, "folder, .gguf file or org/name [SmolLM2-135M-Instruct]")
      ->check(not_empty());
  init->add_option("--encoder-layers", options->shape.encoder_layers,
                   "of the decoder's first layers, made bidirectional")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  init->add_option("--cross-attention-layers", options->layers, "decoder layers, such as 8-29 or 0,4-7 [all]");
  init->add_option("--start", options->start, "how cross-attention starts: scaled, copy, zero, normal, none")
      ->check(CLI::IsMember({"scaled", "copy", "zero", "normal", "none"}))
      ->capture_default_str();
  init->add_option("--chunk-size", options->shape.chunk_size, "tokens of a chunk")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
  init->add_option("--seed", options->shape.seed, "of the random weights")->check(seed_range())->capture_default_str();
  init->add_flag("--int8", options->int8, "keep 8 bits a weight, with a scale for each row");
  init->add_option("-o,--output", options->output, "folder to make")->required();
  init->add_flag("--force", options->force, "write into a folder that is not empty");

  const auto packing = std::make_shared<QuantiseOptions>();
  CLI::App* quantised =
      add_command(*group, "quantise", "Keep a trained adapter's weights in 8 bits, with a scale for each row",
                  "cepe adapter quantise runs/smollm2/cepe/result --output smollm2-adapter", common,
                  [packing, &common] { quantise(*packing, common); });
  quantised->add_option("adapter", packing->adapter, "folder of a dense adapter")->check(not_empty())->required();
  quantised->add_option("-m,--model", packing->model, "its decoder: folder, .gguf file or org/name [the default]")
      ->check(not_empty());
  quantised->add_option("-o,--output", packing->output, "folder to make")->required();
  quantised->add_flag("--force", packing->force, "write into a folder that is not empty");
}

}  // namespace cepe::cli
