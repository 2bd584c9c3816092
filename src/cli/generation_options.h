// The options of generate and chat that shape an answer, and the engine's request made of them.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cli/runtime.h"
#include "context/chunk.h"
#include "engine/engine.h"

namespace cepe::cli {

struct GenerationOptions {
  int64_t max_tokens = 128;
  int64_t decoder_tokens = 0;  // 0: as decoder_window says
  std::vector<std::string> stop;
  std::vector<std::string> logit_bias;  // "ID=BIAS"
  engine::Sampling sampling;
  bool endless = false;  // what leaves the decoder's window goes to the encoder
};

void add_generation_options(CLI::App& command, GenerationOptions& options);

// How many tokens of text the decoder reads itself. As given; else with a prompt or a chat all of the model's positions
// but those kept for the answer (at least half of them), and 256 of these where a document is continued.
// Errors: invalid_argument where more is asked for than the model has positions.
int64_t decoder_window(const GenerationOptions& options, int64_t max_positions, bool continues_document);

// What can be known to be wrong before a model is opened. As engine::validate; warns of options of random choices where
// the likeliest token is always taken. Errors: invalid_argument, naming the option.
void check_answer(const GenerationOptions& options);
// What only the model shows to be wrong, before a document is encoded or a message is read: more decoder tokens than
// positions, a biased token outside the vocabulary. Errors: invalid_argument, naming the option.
void check_answer_of(const Runtime& runtime, const GenerationOptions& options);

// "1234=-5.5", "7=-inf": a token's id and what is added to its logit. Errors: invalid_argument, naming the option.
std::vector<std::pair<text::Token, double>> parse_logit_bias(const std::vector<std::string>& entries);

// Errors: as parse_logit_bias; invalid_argument where an endless answer is wanted without an adapter.
engine::Request make_request(const Runtime& runtime, const GenerationOptions& options, std::vector<text::Token> prompt);

// Errors: invalid_argument, naming what was asked for and needs one, where there is no adapter.
void require_adapter(const Runtime& runtime, const std::string& option);

// Errors: invalid_argument where a prompt or a conversation does not fit the decoder's window and there is no adapter
// whose encoder could read the rest.
void check_moved(const Runtime& runtime, const context::Arrangement& arrangement);

// Says, where that is so, that an answer ends because the decoder's positions are used up, and what helps.
bool tell_of_end(const engine::Completion& completion, const Runtime& runtime);

// Ids before everything else that must stay where the window slides: BOS, where the model's tokenizer puts it there.
int64_t leading_ids(const text::Tokenizer& tokenizer);

// What is generated and what it was read from, for the closing line and for JSON: all answers to one prompt.
struct Account {
  int64_t context_tokens = 0, decoder_tokens = 0, generated_tokens = 0;
  double first_token_seconds =
      0;                         // since the program had its input: encoding and prefill, of the first answer to begin
  double tokens_per_second = 0;  // after it, of all answers together: those but the first of each
};
Account account_of(std::span<const engine::Completion> completions, int64_t context_tokens, int64_t decoder_tokens,
                   double encode_seconds);
// "12345 context + 20 decoder tokens (chunks: 40 encoded, 9 from disk); first token after 1.20 s, 45.1 tokens/s, peak
// memory 512.00 MiB", on a GPU ", on the GPU 1.25 GiB" more.
std::string closing_line(const Account& account, const Runtime& runtime);

}  // namespace cepe::cli
