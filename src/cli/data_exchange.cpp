// cepe data import, cepe data export: corpora in the formats that CEPE was published with.
#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/output_folder.h"
#include "cli/runtime.h"
#include "cli/standard_streams.h"
#include "data/corpus_import.h"
#include "data/token_corpus.h"
#include "model/locate.h"

namespace cepe::cli {
namespace {

using base::Error;
using base::ErrorCode;

constexpr int64_t most_tokens = int64_t{1} << 26;  // of a sample's column, as data/published.h has it

struct ImportOptions {
  std::vector<std::string> mds, npy;
  std::string output, model, tokenizer;
  data::CorpusOptions corpus;
};

struct ExportOptions {
  std::string folder, mds, npy;
  int64_t tokens = 4096, previous = 4096;
  bool zstd = false, force = false;
};

void import(const ImportOptions& options, const CommonOptions& common) {
  check_is_named(options.output, "--output");
  data::ImportSources sources;
  for (const std::string& folder : options.mds) {
    const std::vector<base::Path> more = data::list_mds_folders(folder);
    sources.mds.insert(sources.mds.end(), more.begin(), more.end());
  }
  sources.npy.assign(options.npy.begin(), options.npy.end());
  if (sources.mds.empty() && sources.npy.empty())
    throw Error(ErrorCode::invalid_argument, "nothing to import; give --mds FOLDER or --npy FILE");
  const base::Path source =
      options.tokenizer.empty() ? model::locate_model(options.model, common.cache()) : base::Path(options.tokenizer);
  const auto tokenizer = load_tokenizer_at(source);
  data::CorpusOptions corpus = options.corpus;
  corpus.model = source.filename().string();
  const data::CorpusReport report = data::import_corpus(sources, *tokenizer, options.output, corpus);
  base::notice(std::to_string(report.documents) + " documents, " + std::to_string(report.tokens) + " tokens");
  write_output(options.output + "\n");
}

void export_corpus(const ExportOptions& options) {
  if (options.mds.empty() == options.npy.empty())
    throw Error(ErrorCode::invalid_argument, "give one of --mds FOLDER and --npy FILE");
  const data::TokenCorpus corpus = data::TokenCorpus::open(options.folder);
  if (!options.npy.empty()) {
    std::error_code none;
    const bool exists = base::is_there(options.npy);
    base::Path file = std::filesystem::canonical(options.npy, none);  // a link is followed, as by cp
    if (none) file = options.npy;
    if (std::filesystem::equivalent(file.parent_path() / ".", options.folder, none))
      throw Error(ErrorCode::invalid_argument,
                  "--npy " + options.npy + ": this is in the corpus; choose another place");
    if (exists && !options.force)
      throw Error(ErrorCode::invalid_argument, "--npy " + options.npy + ": is there; choose another or pass --force");
    data::write_published_documents(corpus, file);
    base::notice(std::to_string(corpus.documents().size()) + " documents");
    write_output(options.npy + "\n");
    return;
  }
  OutputFolder folder(options.mds, options.force, "--mds");
  const int64_t samples =
      data::write_published_samples(corpus, options.previous, options.tokens, options.mds, {.zstd = options.zstd});
  folder.keep();
  base::notice(std::to_string(samples) + " samples of " + std::to_string(options.previous) + " + " +
               std::to_string(options.tokens) + " tokens");
  write_output(options.mds + "\n");
}

}  // namespace

void add_data_import(CLI::App& group, CommonOptions& common) {
  const auto options = std::make_shared<ImportOptions>();
  CLI::App* command = add_command(
      group, "import", "A corpus from token ids in MDS folders (a document a sample) or .npy files of documents",
      "cepe data import --mds redpajama/train --model meta-llama/Llama-2-7b-hf --output redpajama-train", common,
      [options, &common] { import(*options, common); });
  command->add_option("--mds", options->mds, "folders with index.json, or folders of these")->check(not_empty());
  command->add_option("--npy", options->npy, "files of [number of documents][lengths][tokens]")->check(not_empty());
  command->add_option("-o,--output", options->output, "folder to make, or to go on with")->required();
  command->add_option("--domain", options->corpus.domain, "of all documents [the samples' own, else the name]");
  command->add_option("--shard-tokens", options->corpus.shard_tokens, "tokens of a file")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  command->add_option("-m,--model", options->model, "whose ids they are [SmolLM2-135M-Instruct]")
      ->check(not_empty())
      ->group("Model");
  command->add_option("--tokenizer", options->tokenizer, "folder, tokenizer.json, tokenizer.model or .gguf")
      ->check(not_empty())
      ->group("Model");
}

void add_data_export(CLI::App& group, CommonOptions& common) {
  const auto options = std::make_shared<ExportOptions>();
  CLI::App* command =
      add_command(group, "export", "A corpus as an MDS folder of samples, or as a .npy file of documents",
                  "cepe data export books --mds books-mds --tokens 4096 --previous-tokens 4096", common,
                  [options] { export_corpus(*options); });
  command->add_option("FOLDER", options->folder, "a corpus, made by data build")->check(not_empty())->required();
  CLI::Option* mds =
      command->add_option("--mds", options->mds, "folder to make: samples of prev_token_ids, token_ids and domain")
          ->check(not_empty());
  command->add_option("--npy", options->npy, "file to make: [number of documents][lengths][tokens]")
      ->check(not_empty());
  command->add_option("--tokens", options->tokens, "token_ids of a sample, and the step from one to the next")
      ->check(CLI::Range(int64_t{1}, most_tokens))
      ->capture_default_str()
      ->needs(mds);
  command->add_option("--previous-tokens", options->previous, "prev_token_ids of a sample; 0: no such column")
      ->check(CLI::Range(int64_t{0}, most_tokens))
      ->capture_default_str()
      ->needs(mds);
  command->add_flag("--zstd", options->zstd, "compressed shards")->needs(mds);
  command->add_flag("--force", options->force, "write into a folder that is not empty, or over a file");
}

}  // namespace cepe::cli
