#include "cli/generation_options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "ops/device.h"

namespace cepe::cli {
namespace {

using base::Error;
using base::ErrorCode;

// Each row the decoder reads itself attends to the whole context in every layer: 256 are enough to carry a text on.
constexpr int64_t continuation_window = 256;

std::string peak_memory(const Runtime& runtime) {
  const std::optional<int64_t> on_gpu = ops::peak_device_bytes(runtime.model.decoder.device());
  return base::human_bytes(base::peak_resident_bytes()) +
         (on_gpu ? ", on the GPU " + base::human_bytes(*on_gpu) : std::string());
}

void warn_of_idle(const engine::Sampling& sampling) {
  if (sampling.temperature > 0) return;
  std::string idle;
  const auto name = [&](bool is_given, const char* option) {
    if (is_given) idle += (idle.empty() ? "" : ", ") + std::string(option);
  };
  name(sampling.top_p != 1, "--top-p");
  name(sampling.top_k != 0, "--top-k");
  name(sampling.min_p != 0, "--min-p");
  name(sampling.seed != 0, "--seed");
  if (!idle.empty())
    base::warn(idle +
               ": without effect at --temperature 0, where the likeliest token is always taken; give a higher one");
}

}  // namespace

void add_generation_options(CLI::App& command, GenerationOptions& options) {
  const char* group = "Answer";
  engine::Sampling& sampling = options.sampling;
  command.add_option("-n,--max-tokens", options.max_tokens, "longest answer")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str()
      ->group(group);
  command
      .add_option(
          "--decoder-tokens", options.decoder_tokens,
          "how many tokens of text the decoder reads itself; what is beyond goes to the encoder [what fits; 256 "
          "where a document is continued]")
      ->transform(token_count())
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->group(group);
  command.add_option("--stop", options.stop, "text before which the answer ends (may be given again)")
      ->allow_extra_args(false)
      ->group(group);
  command.add_option("--temperature", sampling.temperature, "0: always the likeliest token")
      ->capture_default_str()
      ->group(group);
  command.add_option("--top-p", sampling.top_p, "only the likeliest tokens of this total probability")
      ->capture_default_str()
      ->group(group);
  command.add_option("--top-k", sampling.top_k, "only this many; 0: all")->capture_default_str()->group(group);
  command.add_option("--min-p", sampling.min_p, "only tokens at least this likely, relative to the likeliest")
      ->capture_default_str()
      ->group(group);
  command.add_option("--repetition-penalty", sampling.repetition_penalty, "above 1: tokens already there count less")
      ->capture_default_str()
      ->group(group);
  command.add_option("--frequency-penalty", sampling.frequency_penalty, "for each time a token was generated")
      ->capture_default_str()
      ->group(group);
  command.add_option("--presence-penalty", sampling.presence_penalty, "once a token was generated")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--logit-bias", options.logit_bias,
                  "ID=BIAS: added to the logit of that token (`cepe tokenize` tells ids); -inf bans it (may be given "
                  "again)")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_flag("--endless", options.endless,
                "no limit to the answer but --max-tokens: where the decoder's window is full, its oldest half goes to "
                "the encoder")
      ->group(group);
  command.add_option("--seed", sampling.seed, "of the random choices")
      ->check(seed_range())
      ->capture_default_str()
      ->group(group);
}

int64_t decoder_window(const GenerationOptions& options, int64_t max_positions, bool continues_document) {
  if (options.decoder_tokens > max_positions) {
    throw Error(ErrorCode::invalid_argument, "--decoder-tokens " + std::to_string(options.decoder_tokens) +
                                                 ": the model has " + std::to_string(max_positions) + " positions");
  }
  if (options.decoder_tokens > 0) return options.decoder_tokens;
  const int64_t room = std::max({max_positions - options.max_tokens, max_positions / 2, int64_t{1}});
  return continues_document ? std::min(room, continuation_window) : room;
}

void check_answer(const GenerationOptions& options) {
  engine::Sampling sampling = options.sampling;
  sampling.logit_bias = parse_logit_bias(options.logit_bias);
  engine::validate(sampling);
  if (std::any_of(options.stop.begin(), options.stop.end(), [](const std::string& stop) { return stop.empty(); }))
    throw Error(ErrorCode::invalid_argument, "--stop '': an empty text stands everywhere; give the text to end before");
  warn_of_idle(options.sampling);
}

void check_answer_of(const Runtime& runtime, const GenerationOptions& options) {
  decoder_window(options, runtime.source.decoder.max_positions, false);
  const int64_t least = leading_ids(*runtime.tokenizer) + 2;  // one that leaves the window, and one that stays
  if (options.endless && options.decoder_tokens > 0 && options.decoder_tokens < least) {
    throw Error(ErrorCode::invalid_argument, "--decoder-tokens " + std::to_string(options.decoder_tokens) +
                                                 ": with --endless it must be at least " + std::to_string(least));
  }
  const int64_t vocabulary = runtime.source.decoder.vocabulary;
  for (const auto& [token, bias] : parse_logit_bias(options.logit_bias)) {
    if (token < vocabulary) continue;
    throw Error(ErrorCode::invalid_argument, "--logit-bias: there is no token " + std::to_string(token) +
                                                 "; the model's vocabulary has " + std::to_string(vocabulary));
  }
}

std::vector<std::pair<text::Token, double>> parse_logit_bias(const std::vector<std::string>& entries) {
  std::vector<std::pair<text::Token, double>> parsed;
  for (const std::string& entry : entries) {
    text::Token id = -1;
    double bias = 0;
    const char* end = entry.data() + entry.size();
    const auto [after_id, id_error] = std::from_chars(entry.data(), end, id);
    const bool equals = id_error == std::errc() && after_id != end && *after_id == '=';
    const char* number = equals ? after_id + 1 : end;
    const auto [after_bias, bias_error] = std::from_chars(number, end, bias);
    if (!equals || id < 0 || bias_error != std::errc() || after_bias != end || std::isnan(bias))
      throw Error(ErrorCode::invalid_argument,
                  "--logit-bias '" + entry + "': expected ID=BIAS, as 1234=-5.5 or 1234=-inf");
    parsed.emplace_back(id, bias);
  }
  return parsed;
}

engine::Request make_request(const Runtime& runtime, const GenerationOptions& options,
                             std::vector<text::Token> prompt) {
  engine::Request request;
  request.prompt = std::move(prompt);
  request.sampling = options.sampling;
  request.sampling.logit_bias = parse_logit_bias(options.logit_bias);
  request.max_tokens = options.max_tokens;
  request.stop = options.stop;
  request.end_tokens = runtime.end_tokens();
  if (options.endless)
    request.endless = {&runtime.context_store(), leading_ids(*runtime.tokenizer), options.decoder_tokens};
  return request;
}

void require_adapter(const Runtime& runtime, const std::string& option) {
  try {
    runtime.context_store();
  } catch (const Error& error) {
    throw Error(error.code(), option + ": " + error.what());
  }
}

void check_moved(const Runtime& runtime, const context::Arrangement& arrangement) {
  if (arrangement.moved == 0 || runtime.store) return;
  const auto read = static_cast<int64_t>(arrangement.decoder.size());
  throw Error(ErrorCode::invalid_argument,
              "the prompt or conversation has " + std::to_string(read + arrangement.moved) +
                  " tokens, the decoder reads " + std::to_string(read) + " of them, and model '" + runtime.model_name +
                  "' has no adapter for the rest. Shorten it, or give --adapter FOLDER");
}

bool tell_of_end(const engine::Completion& completion, const Runtime& runtime) {
  if (completion.finish != engine::Finish::window) return false;
  base::notice("the answer ends where the model's " + std::to_string(runtime.source.decoder.max_positions) +
               " positions are used up; a smaller --decoder-tokens leaves it more of them, --endless goes on");
  return true;
}

int64_t leading_ids(const text::Tokenizer& tokenizer) { return tokenizer.adds_bos && tokenizer.bos ? 1 : 0; }

Account account_of(std::span<const engine::Completion> completions, int64_t context_tokens, int64_t decoder_tokens,
                   double encode_seconds) {
  Account account = {context_tokens, decoder_tokens};
  double first = std::numeric_limits<double>::infinity(), last = 0;  // tokens, in seconds since the request
  int64_t further = 0;
  for (const engine::Completion& completion : completions) {
    const auto tokens = static_cast<int64_t>(completion.tokens.size());
    if (tokens == 0) continue;  // ended before it began
    account.generated_tokens += tokens;
    further += tokens - 1;
    first = std::min(first, completion.prefill_seconds);
    last = std::max(last, completion.prefill_seconds + completion.decode_seconds);
  }
  account.first_token_seconds = encode_seconds + (account.generated_tokens > 0 ? first : 0);
  if (further > 0 && last > first) account.tokens_per_second = static_cast<double>(further) / (last - first);
  return account;
}

std::string closing_line(const Account& account, const Runtime& runtime) {
  std::string chunks;
  if (runtime.store && account.context_tokens > 0) {
    const context::StoreCounters& counters = runtime.store->counters();
    chunks =
        " (chunks: " + std::to_string(counters.encoded) + " encoded, " + std::to_string(counters.found) + " found)";
  }
  char times[96];
  std::snprintf(times, sizeof times, "; first token after %.2f s, %.1f tokens/s, peak memory ",
                account.first_token_seconds, account.tokens_per_second);
  return std::to_string(account.context_tokens) + " context + " + std::to_string(account.decoder_tokens) +
         " decoder tokens" + chunks + times + peak_memory(runtime);
}

}  // namespace cepe::cli
