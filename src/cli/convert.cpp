// cepe convert: models from one layout into another.
#include "model/convert.h"

#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/output_folder.h"
#include "cli/standard_streams.h"
#include "model/locate.h"

namespace cepe::cli {
namespace {

using base::Path;

struct ConvertOptions {
  std::string model, adapter, output;
  bool force = false;
};

void check_can_be_asked(const ConvertOptions& options, const CommonOptions& common, const model::ModelSource& source) {
  using base::Error;
  using base::ErrorCode;
  if (common.dtype == "fp8" || common.dtype == "int8" || common.dtype == "int4") {
    throw Error(ErrorCode::invalid_argument, "--dtype " + common.dtype +
                                                 ": files are written in float32 or bfloat16; give --dtype " +
                                                 common.dtype + " to the command that uses the model");
  }
  if (common.dtype != "auto" && !source.checkpoint.is_gguf())
    base::warn("--dtype " + common.dtype + ": without effect; only the blocks of GGUF files are unpacked");
  if (!source.encoder || options.adapter.empty()) return;
  throw Error(ErrorCode::invalid_argument,
              options.model +
                  ": a published CEPE folder, which has its adapter; take it apart (without --adapter) and "
                  "join its decoder with " +
                  options.adapter);
}

void convert(const ConvertOptions& options, const CommonOptions& common) {
  const Path path = model::locate_model(options.model, common.cache());
  const Path output = options.output;
  check_is_another(output, path);
  if (!options.adapter.empty()) check_is_another(output, options.adapter);
  const model::ModelSource source = model::open_model(path);
  check_can_be_asked(options, common, source);
  OutputFolder folder(output, options.force, "--output");
  if (!options.adapter.empty()) {
    model::join_cepe_folder(source, options.adapter, output);
    base::notice("published CEPE folder: decoder, encoder and cross-attention together");
  } else if (source.encoder) {
    OutputFolder decoder(output / "decoder", options.force, "--output");
    OutputFolder adapter(output / "adapter", options.force, "--output");
    model::split_cepe_folder(source, output / "decoder", output / "adapter");
    decoder.keep();
    adapter.keep();
    base::notice("decoder and adapter apart: --model " + (output / "decoder").string() + " --adapter " +
                 (output / "adapter").string());
  } else {
    const bool half = common.dtype == "bfloat16";
    model::convert_to_safetensors(source, output, half ? formats::DType::bfloat16 : formats::DType::float32);
    if (source.checkpoint.is_gguf()) base::notice("the tokenizer stays in the GGUF file: --tokenizer " + path.string());
  }
  folder.keep();
  write_output(output.string() + "\n");
}

}  // namespace

void add_convert(CLI::App& program, CommonOptions& common) {
  const auto options = std::make_shared<ConvertOptions>();
  CLI::App* command = add_command(
      program, "convert",
      "A published CEPE folder into decoder and adapter; with --adapter these two into one; a GGUF file or a .bin "
      "folder into a safetensors folder (blocks become float32, or bfloat16 with --dtype bfloat16)",
      "cepe convert CEPE-LLaMA-2-7B --output cepe-llama-2-7b", common,
      [options, &common] { convert(*options, common); });
  command->add_option("MODEL", options->model, "folder, .gguf file or org/name")->check(not_empty())->required();
  command->add_option("-a,--adapter", options->adapter, "adapter folder to join with a decoder folder")
      ->check(not_empty());
  command->add_option("-o,--output", options->output, "folder to make")->required();
  command->add_flag("--force", options->force, "write into a folder that is not empty");
}

}  // namespace cepe::cli
