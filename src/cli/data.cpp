// cepe data: tokenised corpora for training.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <set>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/output_folder.h"
#include "cli/runtime.h"
#include "cli/standard_streams.h"
#include "data/corpus_builder.h"
#include "data/documents.h"
#include "model/locate.h"

namespace cepe::cli {
namespace {

struct BuildOptions {
  std::vector<std::string> texts;
  std::string output, model, tokenizer;
  data::CorpusOptions corpus;
};

bool is_below(const base::Path& file, const base::Path& folder) {
  const base::Path inner = std::filesystem::absolute(file).lexically_normal(),
                   outer = (std::filesystem::absolute(folder) / "").lexically_normal();
  // The last part of `outer` is the empty one behind its slash.
  return std::mismatch(outer.begin(), std::prev(outer.end()), inner.begin(), inner.end()).first ==
         std::prev(outer.end());
}

// A file that two arguments name, or links lead to, counts where it comes first.
void leave_out_repeated(std::vector<base::Path>& files) {
  std::set<base::Path> seen;
  std::erase_if(files, [&](const base::Path& file) {
    std::error_code problem;
    const base::Path plain = std::filesystem::canonical(file, problem);
    if (problem || seen.insert(plain).second) return false;
    base::warn(file.string() + ": is among the documents already; taken once");
    return true;
  });
}

std::vector<base::Path> files_of(const std::vector<std::string>& texts, const base::Path& output) {
  std::vector<base::Path> files;
  for (const std::string& text : texts) {
    const std::vector<base::Path> more = data::list_document_files(text);
    files.insert(files.end(), more.begin(), more.end());
  }
  // A corpus may be made in the folder of its texts: it is none of them when the command goes on.
  std::erase_if(files, [&](const base::Path& file) { return is_below(file, output); });
  leave_out_repeated(files);
  return files;
}

void build(const BuildOptions& options, const CommonOptions& common) {
  check_is_named(options.output, "--output");
  const std::vector<base::Path> files = files_of(options.texts, options.output);
  const base::Path source =
      options.tokenizer.empty() ? model::locate_model(options.model, common.cache()) : base::Path(options.tokenizer);
  const auto tokenizer = load_tokenizer_at(source);
  data::CorpusOptions corpus = options.corpus;
  corpus.threads = common.threads;
  corpus.model = source.filename().string();
  const data::CorpusReport report = data::build_corpus(files, *tokenizer, options.output, corpus);
  std::string summary = std::to_string(report.documents) + " documents, " + std::to_string(report.tokens) + " tokens";
  if (report.found > 0) summary += "; " + std::to_string(report.found) + " documents were there before";
  if (report.empty > 0) summary += "; " + std::to_string(report.empty) + " without text were left out";
  if (report.skipped > 0) summary += "; " + std::to_string(report.skipped) + " bad lines or files were passed over";
  base::notice(summary);
  write_output(options.output + "\n");
}

void add_corpus_options(CLI::App& command, data::CorpusOptions& corpus) {
  const char* group = "Corpus";
  command
      .add_option("--domain", corpus.domain, "of all documents [field \"domain\", else the file's name without number]")
      ->group(group);
  command.add_flag("--bos", corpus.bos, "the model's BOS token before each document")->group(group);
  command.add_flag("--eos", corpus.eos, "its EOS token behind each document")->group(group);
  command.add_option("--max-document-tokens", corpus.max_document_tokens, "cut documents off there; 0: never")
      ->check(not_negative())
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--max-skipped", corpus.max_skipped,
                  "bad lines and files to report and pass over before one is an error")
      ->check(not_negative())
      ->capture_default_str()
      ->group(group);
  command.add_option("--shard-tokens", corpus.shard_tokens, "tokens of a file")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str()
      ->group(group);
}

void add_build(CLI::App& group, CommonOptions& common) {
  const auto options = std::make_shared<BuildOptions>();
  CLI::App* command =
      add_command(group, "build", "Tokenise documents into a corpus; the same command goes on where it was interrupted",
                  "cepe data build --text books_train-0.jsonl.zst books_train-1.jsonl.zst --output books", common,
                  [options, &common] { build(*options, common); });
  command
      ->add_option("--text", options->texts,
                   "documents: .jsonl, .jsonl.zst, .jsonl.gz, text files, or folders of these; may be given again")
      ->check(not_empty())
      ->required();
  command->add_option("-o,--output", options->output, "folder to make, or to go on with")->required();
  add_corpus_options(*command, options->corpus);
  command->add_option("-m,--model", options->model, "whose tokenizer [SmolLM2-135M-Instruct]")
      ->check(not_empty())
      ->group("Model");
  command->add_option("--tokenizer", options->tokenizer, "folder, tokenizer.json, tokenizer.model or .gguf")
      ->check(not_empty())
      ->group("Model");
}

}  // namespace

void add_data(CLI::App& program, CommonOptions& common) {
  CLI::App* group = add_command_group(program, "data", "Tokenised corpora for training",
                                      "cepe data build --text books.jsonl.zst --output books", common);
  group->require_subcommand(1);
  add_build(*group, common);
  add_data_info(*group, common);
  add_data_verify(*group, common);
  add_data_import(*group, common);
  add_data_export(*group, common);
}

}  // namespace cepe::cli
