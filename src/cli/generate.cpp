// cepe generate: one answer, over documents of any length.
#include <chrono>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/attribution.h"
#include "cli/chat_prompt.h"
#include "cli/commands.h"
#include "cli/documents.h"
#include "cli/generation_options.h"
#include "cli/runtime.h"
#include "cli/standard_streams.h"
#include "context/chunk.h"
#include "data/documents.h"
#include "ops/device.h"

namespace cepe::cli {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

struct GenerateOptions {
  ModelOptions model;
  GenerationOptions answer;
  std::vector<std::string> documents;
  std::optional<std::string> prompt;
  std::string prompt_file;
  std::string system;
  bool chat = false, json = false, log_probabilities = false, attribution = false;
  int64_t alternatives = 0, samples = 1;
};

// The prompt, if there is one. Standard input is one where nothing else is given, or where something is piped into it
// that no --document - takes.
std::optional<std::string> read_prompt(const GenerateOptions& options) {
  if (options.prompt) return data::utf8_text(*options.prompt, "--prompt");
  bool document_takes_input = false;
  for (const std::string& document : options.documents) document_takes_input |= document == "-";
  if (!options.prompt_file.empty() && options.prompt_file != "-")
    return data::utf8_text(base::read_file(options.prompt_file), options.prompt_file);
  if (document_takes_input) {
    if (!options.prompt_file.empty())
      throw Error(ErrorCode::invalid_argument,
                  "--prompt-file - and --document -: standard input can be read only once");
    return std::nullopt;
  }
  const bool asked = !options.prompt_file.empty() || options.documents.empty();
  if (!asked && !standard_input_is_fed()) return std::nullopt;
  announce_waiting(asked ? "reading the prompt from standard input (Ctrl-D ends it)"
                         : "waiting for the prompt on standard input (--prompt TEXT gives one, </dev/null none)");
  std::string text = data::utf8_text(read_standard_input(), "the prompt (standard input)");
  if (text.empty() && !asked) return std::nullopt;
  return text;
}

// Ids that the decoder is to answer; nothing where a document is to be continued.
std::optional<std::vector<text::Token>> prompt_ids(const Runtime& runtime, const GenerateOptions& options,
                                                   const std::optional<std::string>& prompt) {
  if (options.chat) {
    if (!prompt || prompt->find_first_not_of(" \t\r\n") == std::string::npos)
      throw Error(ErrorCode::invalid_argument,
                  "--chat: nothing to answer; give --prompt, --prompt-file or standard input");
    std::vector<text::ChatMessage> messages;
    if (!options.system.empty()) messages.push_back({"system", data::utf8_text(options.system, "--system")});
    messages.push_back({"user", *prompt});
    return ChatPrompt(*runtime.tokenizer, runtime.model_name).encode(messages);
  }
  if (!prompt) return std::nullopt;
  std::vector<text::Token> ids = runtime.tokenizer->encode(*prompt, {.add_special = true});
  // What the post-processor puts behind a text ([SEP], EOS) would end the answer before it begins.
  if (const auto eos = runtime.tokenizer->eos; eos && ids.size() > 1 && ids.back() == *eos) ids.pop_back();
  if (ids.empty())
    throw Error(ErrorCode::invalid_argument, "the prompt is empty; give --prompt, --prompt-file or standard input");
  return ids;
}

context::Arrangement arrange_input(const Runtime& runtime, const GenerateOptions& options,
                                   const std::vector<Document>& documents,
                                   const std::optional<std::vector<text::Token>>& prompt) {
  std::vector<std::vector<text::Token>> texts;
  texts.reserve(documents.size());
  for (const Document& document : documents) texts.push_back(runtime.tokenizer->encode(document.text));
  const int64_t leading = leading_ids(*runtime.tokenizer);
  int64_t window = decoder_window(options.answer, runtime.source.decoder.max_positions, !prompt);
  const int64_t chunk_size = runtime.model.adapter ? runtime.model.adapter->chunk_size : 256;
  if (prompt) return context::arrange(texts, &*prompt, window, chunk_size, leading, options.model.chunk_overlap);
  // A text that is continued in its middle begins as every text of the model begins.
  window = std::max(window - leading, int64_t{1});
  context::Arrangement arrangement =
      context::arrange(texts, nullptr, window, chunk_size, 0, options.model.chunk_overlap);
  if (leading > 0) arrangement.decoder.insert(arrangement.decoder.begin(), *runtime.tokenizer->bos);
  return arrangement;
}

void tell_of_moved(const context::Arrangement& arrangement, bool continues) {
  if (arrangement.moved == 0) return;
  const std::string count = std::to_string(arrangement.moved);
  if (continues) {
    base::detail("the decoder reads the last " + std::to_string(arrangement.decoder.size()) +
                 " tokens of the document itself, the encoder the " + count + " before them");
  } else {
    base::notice("the prompt is longer than the decoder's window: its oldest " + count + " tokens go to the encoder");
  }
}

void warn_of_idle_overlap(const GenerateOptions& options, const context::Arrangement& arrangement) {
  if (options.model.chunk_overlap == 0 || !arrangement.chunks.empty()) return;
  base::warn("--chunk-overlap " + std::to_string(options.model.chunk_overlap) +
             ": without effect, since nothing goes to the encoder; give a --document");
}

std::string visible(const std::string& token) {
  return Json(token).dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json log_probabilities_json(const Runtime& runtime, const engine::Completion& completion) {
  const auto entry = [&](const engine::TokenLogProbability& one) -> Json {
    return {{"id", one.token},
            {"token", runtime.tokenizer->decode(std::span(&one.token, 1), false)},
            {"logprob", std::isfinite(one.log_probability) ? Json(one.log_probability) : Json()}};
  };
  Json list = Json::array();
  for (const auto& step : completion.log_probabilities) {
    if (step.empty()) continue;
    Json item = entry(step.front());
    item["top"] = Json::array();
    for (size_t i = 1; i < step.size(); ++i) item["top"].push_back(entry(step[i]));
    list.push_back(std::move(item));
  }
  return list;
}

// What the answers are made of.
struct Given {
  const Runtime& runtime;
  const GenerateOptions& options;
  const std::vector<Document>& documents;
  const context::Arrangement& arrangement;
};

Attribution attribution_of(const Given& given, const engine::Completion& completion) {
  return attribution_of(completion, given.arrangement.chunks, given.documents, *given.runtime.tokenizer);
}

// What an answer says of itself.
Json answer_json(const Given& given, const engine::Completion& completion) {
  Json result = {{"text", completion.text},
                 {"tokens", completion.tokens},
                 {"finish", std::string(engine::name_of(completion.finish))}};
  if (given.options.log_probabilities) result["logprobs"] = log_probabilities_json(given.runtime, completion);
  if (given.options.attribution) result["attribution"] = attribution_json(attribution_of(given, completion));
  return result;
}

Json result_json(const Given& given, const std::vector<engine::Completion>& completions, const Account& account) {
  const Runtime& runtime = given.runtime;
  Json result = answer_json(given, completions.front());
  result.update(
      Json{{"model", runtime.model_name},
           {"adapter", runtime.adapter_folder ? Json(runtime.adapter_folder->string()) : Json()},
           {"usage",
            {{"documents", given.documents.size()},
             {"context_tokens", account.context_tokens},
             {"decoder_tokens", account.decoder_tokens},
             {"generated_tokens", account.generated_tokens}}},
           {"timing",
            {{"first_token_seconds", account.first_token_seconds}, {"tokens_per_second", account.tokens_per_second}}},
           {"peak_memory_bytes", base::peak_resident_bytes()}});
  if (const auto peak = ops::peak_device_bytes(runtime.model.decoder.device())) {
    result["peak_device_memory_bytes"] = *peak;
  }
  if (runtime.store) {
    const context::StoreCounters& counters = runtime.store->counters();
    result["chunks"] = {{"encoded", counters.encoded}, {"found", counters.found}};
  }
  for (size_t i = 1; i < completions.size(); ++i)
    result["further_answers"].push_back(answer_json(given, completions[i]));
  return result;
}

void print_log_probabilities(const Runtime& runtime, const engine::Completion& completion) {
  for (const auto& step : completion.log_probabilities) {
    std::string line;
    for (const engine::TokenLogProbability& one : step) {
      char number[32];
      std::snprintf(number, sizeof number, "%s%.4f ", line.empty() ? "" : "   ",
                    static_cast<double>(one.log_probability));
      line += number + visible(runtime.tokenizer->decode(std::span(&one.token, 1), false));
    }
    std::fprintf(stderr, "%s\n", line.c_str());
  }
}

void print_answers(const Given& given, const std::vector<engine::Completion>& completions, bool streamed) {
  for (size_t i = 0; i < completions.size(); ++i) {
    if (!streamed) write_output((i > 0 ? "\n" : "") + completions[i].text);
    write_output("\n");
    if (given.options.log_probabilities) print_log_probabilities(given.runtime, completions[i]);
    if (given.options.attribution) std::fputs(attribution_text(attribution_of(given, completions[i])).c_str(), stderr);
  }
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void check_options(const GenerateOptions& options) {
  if (options.prompt && !options.prompt_file.empty())
    throw Error(ErrorCode::invalid_argument, "--prompt and --prompt-file: give one of them");
  if (!options.system.empty() && !options.chat)
    throw Error(ErrorCode::invalid_argument, "--system: a system message needs --chat");
  check_answer(options.answer);
  if (options.samples > 1 && options.answer.sampling.temperature == 0)
    throw Error(ErrorCode::invalid_argument,
                "--samples " + std::to_string(options.samples) + ": all would be the same; give --temperature too");
}

void generate(const GenerateOptions& options, const CommonOptions& common) {
  check_options(options);
  engine::EngineOptions engine_settings = engine_options(options.model);
  const std::vector<Document> documents = read_documents(options.documents);
  const std::optional<std::string> prompt = read_prompt(options);
  const std::unique_ptr<Runtime> runtime = open_runtime(options.model, common);
  engine_settings.projections = runtime->projections;
  // An error without an adapter, before any work.
  if (!documents.empty()) require_adapter(*runtime, "--document");
  if (options.answer.endless) require_adapter(*runtime, "--endless");
  if (options.attribution) require_adapter(*runtime, "--attribution");
  check_answer_of(*runtime, options.answer);

  const auto start = std::chrono::steady_clock::now();
  const auto ids = prompt_ids(*runtime, options, prompt);
  const context::Arrangement arrangement = arrange_input(*runtime, options, documents, ids);
  check_moved(*runtime, arrangement);
  tell_of_moved(arrangement, !ids);
  warn_of_idle_overlap(options, arrangement);
  engine::Engine engine(runtime->model, *runtime->tokenizer, engine_settings);
  int64_t context_tokens = 0;
  if (!arrangement.chunks.empty()) {
    model::ContextStates states = runtime->context_store().get_or_encode(arrangement.chunks, names_of(documents));
    context_tokens = states.rows;
    engine.set_context(std::move(states));
  }
  const double encode_seconds = seconds_since(start);

  engine::Request request = make_request(*runtime, options.answer, arrangement.decoder);
  request.log_probabilities = options.log_probabilities ? options.alternatives : -1;
  request.attribution = options.attribution;
  request.samples = options.samples;
  const bool streamed = !options.json && options.samples == 1;
  request.on_step = [&](const engine::Step& step) {
    if (streamed) write_output(step.text);
    return !base::interrupted();
  };
  const std::vector<engine::Completion> completions = engine.generate_samples(request);
  const Account account =
      account_of(completions, context_tokens, static_cast<int64_t>(arrangement.decoder.size()), encode_seconds);
  const Given given = {*runtime, options, documents, arrangement};
  if (options.json) {
    const Json result = result_json(given, completions, account);
    write_output(result.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
  } else {
    print_answers(given, completions, streamed);
  }
  for (const engine::Completion& each : completions) {
    if (tell_of_end(each, *runtime)) break;
  }
  base::notice(closing_line(account, *runtime));
  base::throw_if_interrupted();
}

}  // namespace

void add_generate(CLI::App& program, CommonOptions& common) {
  const auto options = std::make_shared<GenerateOptions>();
  CLI::App* command =
      add_command(program, "generate", "Continue a text or answer a question, with documents of any length as context",
                  "cepe generate --document book.txt --document notes/ --chat --prompt \"Who is the narrator?\"",
                  common, [options, &common] { generate(*options, common); });
  add_model_options(*command, options->model);
  command
      ->add_option(
          "-d,--document", options->documents,
          "file, folder or - (standard input); may be given again. Without a prompt the end of the last one is "
          "continued")
      ->check(not_empty())
      ->allow_extra_args(false)
      ->group("Input");
  command->add_option("-p,--prompt", options->prompt, "what the decoder continues or answers")->group("Input");
  command->add_option("--prompt-file", options->prompt_file, "the same from a file [standard input]")
      ->check(not_empty())
      ->group("Input");
  command->add_flag("--chat", options->chat, "the prompt is a message to an assistant (the model's chat template)")
      ->group("Input");
  command->add_option("--system", options->system, "system message, with --chat")->group("Input");
  add_generation_options(*command, options->answer);
  CLI::Option* log_probabilities = command->add_flag(
      "--logprobs", options->log_probabilities, "log-probability of each token: in the JSON, else on standard error");
  log_probabilities->group("Answer");
  command->add_option("--top-logprobs", options->alternatives, "also of so many likeliest tokens")
      ->check(CLI::Range(0, 1000))
      ->needs(log_probabilities)
      ->capture_default_str()
      ->group("Answer");
  command
      ->add_option("--samples", options->samples,
                   "so many answers, drawn with the seeds from --seed on: documents and prompt are read once")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 12))
      ->capture_default_str()
      ->group("Answer");
  command
      ->add_flag("--attribution", options->attribution,
                 "which documents and chunks the answer leaned on: in the JSON, else on standard error")
      ->group("Answer");
  command->add_flag("--json", options->json, "one JSON object instead of text")->group("Answer");
  add_store_options(*command, options->model);
  add_overlap_option(*command, options->model);
  add_attention_options(*command, options->model);
  add_kept_disk_option(*command, options->model);
}

}  // namespace cepe::cli
