// cepe eval lm: perplexity of the same tokens with more and more context.
#include <algorithm>
#include <set>
#include <string_view>

#include "base/error.h"
#include "base/log.h"
#include "base/parse_values.h"
#include "cli/commands.h"
#include "cli/runtime.h"
#include "cli/standard_streams.h"
#include "data/documents.h"
#include "eval/engine_scorer.h"
#include "eval/perplexity.h"

namespace cepe::cli {
namespace {

struct EvalLmOptions {
  ModelOptions model;
  std::vector<std::string> texts;
  std::string contexts = "0,2048,8192,32768,126976";
  std::string source = "own";
  bool json = false, by_document = false;
  eval::PerplexityOptions measured;
};

// Each length once, the shortest first: the process's peak memory after each is then that of this length.
std::vector<int64_t> context_lengths(const std::string& text) {
  std::vector<int64_t> lengths = base::parse_counts(text, "--context-tokens");
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

data::DocumentReader open_documents(const std::vector<std::string>& texts) {
  std::vector<base::Path> files;
  for (const std::string& text : texts) {
    const std::vector<base::Path> more = data::list_document_files(text);
    files.insert(files.end(), more.begin(), more.end());
  }
  return data::DocumentReader(files);
}

// Rotary positions go on beyond what a model was trained with, at a price that direct attention to a long text is there
// to show; learned ones do not.
void check_positions(const model::DecoderConfig& decoder, const eval::PerplexityOptions& options) {
  const int64_t most = decoder.max_positions, read = options.decoder_tokens + options.direct_tokens;
  if (most <= 0 || read <= most) return;
  const std::string given = "--decoder-tokens " + std::to_string(options.decoder_tokens);
  if (options.direct_tokens == 0) {
    throw base::Error(base::ErrorCode::invalid_argument, given + ": the decoder reads at most " + std::to_string(most));
  }
  const std::string both = given + " and --direct-tokens " + std::to_string(options.direct_tokens) + ": " +
                           std::to_string(read) + " tokens, and the decoder has " + std::to_string(most);
  if (decoder.learned_positions) throw base::Error(base::ErrorCode::invalid_argument, both + " learned positions");
  base::warn(both + " positions; beyond them it was not trained");
}

void check_window(const Runtime& runtime, const eval::PerplexityOptions& options) {
  check_positions(runtime.source.decoder, options);
  if (options.context_tokens.back() > 0 && !runtime.store) {
    throw base::Error(base::ErrorCode::invalid_argument,
                      "--context-tokens: model '" + runtime.model_name +
                          "' has no adapter, so nothing can read a context for it. Give one with --adapter FOLDER, or "
                          "measure the decoder alone with --context-tokens 0");
  }
}

// Told before hours of scoring, not after them by eval compare.
void warn_of_repeated_ids(const eval::WindowSet& set) {
  std::set<std::string_view> seen;
  for (const std::string& id : set.ids) {
    if (seen.insert(id).second) continue;
    return base::warn("--by-document: document '" + id +
                      "' occurs twice; cepe eval compare pairs documents by their ids and refuses such an output");
  }
}

// Ids of documents may be paths, and those anything but UTF-8.
std::string json_line(const eval::PerplexityResult& result, bool by_document) {
  return to_json(result, by_document).dump(-1, ' ', false, base::OrderedJson::error_handler_t::replace) + "\n";
}

void eval_lm(const EvalLmOptions& given, const CommonOptions& common) {
  eval::PerplexityOptions options = given.measured;
  options.context_tokens = context_lengths(given.contexts);
  options.source = eval::context_source(given.source);
  validate(options);
  data::DocumentReader documents = open_documents(given.texts);
  const std::unique_ptr<Runtime> runtime = open_runtime(given.model, common);
  check_window(*runtime, options);

  const eval::WindowSet set = draw_windows(documents, *runtime->tokenizer, options);
  base::notice(std::to_string(set.windows.size()) + " windows of " + std::to_string(set.documents) + " documents; " +
               std::to_string(set.too_short) + " documents were too short");
  if (given.by_document) warn_of_repeated_ids(set);
  engine::EngineOptions settings = eval::scoring_options(options.decoder_tokens, options.direct_tokens);
  settings.kept_type = kept_type(given.model.kept_type);
  settings.cache_type = cache_type(given.model.cache_type);
  if (settings.kept_type != engine::KeptType::automatic) settings.path = model::CrossAttentionPath::kept;
  engine::Engine engine(runtime->model, *runtime->tokenizer, settings);
  const eval::Scorer score = eval::engine_scorer(engine, runtime->store.get());
  const int64_t chunk_size = runtime->model.adapter ? runtime->model.adapter->chunk_size : 256;
  if (!given.json) write_output(eval::table_head());
  for (const int64_t length : options.context_tokens) {
    const eval::PerplexityResult result = measure_perplexity(set, length, options, chunk_size, score);
    write_output(given.json ? json_line(result, given.by_document) : table_row(result));
  }
}

void add_protocol_options(CLI::App& command, EvalLmOptions& options) {
  const char* group = "Protocol";
  command
      .add_option("--text", options.texts,
                  "documents: .jsonl, .jsonl.zst, .jsonl.gz, a text file or a folder of these; may be given again")
      ->check(not_empty())
      ->required()
      ->allow_extra_args(false)
      ->group(group);
  command.add_option("--decoder-tokens", options.measured.decoder_tokens, "tokens of the decoder's window")
      ->transform(token_count())
      ->capture_default_str()
      ->group(group);
  command.add_option("--target-tokens", options.measured.target_tokens, "its last tokens, which are scored")
      ->transform(token_count())
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--context-tokens", options.contexts,
                  "tokens before the window that the encoder reads. The same windows are scored with each; documents "
                  "too short for the longest and the window are counted and left out")
      ->capture_default_str()
      ->group(group);
  command.add_option("--samples", options.measured.samples, "windows a document, at places drawn by --seed")
      ->capture_default_str()
      ->group(group);
  command.add_option("--documents", options.measured.documents, "at most so many documents; 0: all")
      ->capture_default_str()
      ->group(group);
  command.add_option("--seed", options.measured.seed, "of the windows' places")
      ->check(seed_range())
      ->capture_default_str()
      ->group(group);
  CLI::Option* json =
      command
          .add_flag("--json", options.json,
                    "a JSON object a line (stderr: standard error of nll over documents) instead of a table")
          ->group(group);
  command
      .add_flag("--by-document", options.by_document,
                "with --json: the nll of each document too, which cepe eval compare pairs")
      ->needs(json)
      ->group(group);
}

void add_control_options(CLI::App& command, EvalLmOptions& options) {
  const char* group = "Controls";
  command
      .add_option("--context", options.source,
                  "own: the text before the window; other: another document's; shuffled: own, the tokens inside each "
                  "chunk shuffled by --seed")
      ->check(CLI::IsMember({"own", "other", "shuffled"}))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--other", options.measured.other,
                  "with --context other: the document so many further on, or the next after it that is another text")
      ->capture_default_str()
      ->group(group);
  command
      .add_option(
          "--skip-nearest", options.measured.skipped_tokens,
          "tokens nearest to what the decoder reads that are left out; the context is as long as asked and ends "
          "before them")
      ->transform(token_count())
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--direct-tokens", options.measured.direct_tokens,
                  "tokens before the window that the decoder itself reads in front of it; the context ends before them")
      ->transform(token_count())
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--room", options.measured.room,
                  "tokens that each window has before it at least. Runs with the same room score the same targets; 0: "
                  "what the longest context, --skip-nearest and --direct-tokens need")
      ->transform(token_count())
      ->capture_default_str()
      ->group(group);
}

}  // namespace

void add_eval_lm(CLI::App& group, CommonOptions& common) {
  const auto options = std::make_shared<EvalLmOptions>();
  CLI::App* command = add_command(
      group, "lm", "Perplexity of the last tokens of a window, with more and more text before it as context",
      "cepe eval lm --text books.jsonl.zst --context-tokens 0,2K,8K --samples 4 --json", common,
      [options, &common] { eval_lm(*options, common); });
  add_protocol_options(*command, *options);
  add_control_options(*command, *options);
  add_model_options(*command, options->model);
  add_store_options(*command, options->model);
  command
      ->add_option("--kept-type", options->model.kept_type,
                   "read each context by way of K and V of all layers that are kept as questions about it would have "
                   "them: bfloat16, or int8 (on a CPU); auto: not kept")
      ->check(CLI::IsMember({"auto", "bfloat16", "int8"}))
      ->capture_default_str()
      ->group("Cross-attention");
  add_cache_type_option(*command, options->model);
}

}  // namespace cepe::cli
