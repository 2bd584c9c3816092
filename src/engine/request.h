// What is asked of the engine, and what came of it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "context/context_store.h"
#include "engine/sampler.h"
#include "model/cross_attention.h"
#include "text/tokenizer.h"

namespace cepe::engine {

using RequestId = uint64_t;

// A context as requests share it: pages, and K and V of all layers where they are kept.
using ContextPointer = std::shared_ptr<const model::ContextStates>;

struct Step {
  text::Token token = 0;
  std::string text;                                    // what is now certain, maybe empty
  std::vector<TokenLogProbability> log_probabilities;  // [0] the token itself, then the best; empty unless asked for
  int64_t sample = 0;                                  // which of the request's answers
};

enum class Finish { stop, length, window, cancelled };  // window: the decoder's positions are used up
std::string_view name_of(Finish finish);

struct Completion {
  std::vector<text::Token> tokens;
  std::string text;  // without the stop string
  Finish finish = Finish::length;
  std::vector<std::vector<TokenLogProbability>> log_probabilities;
  double prefill_seconds = 0;  // from the request to the first token
  double decode_seconds = 0;   // all further tokens
  int64_t sample = 0;          // which of the request's answers
  // By token, where attribution was asked for: what the row that chose it gave to each page of the context (mean over
  // heads and layers; sums to 1; empty without a context). A window that slid adds pages at the end.
  std::vector<std::vector<float>> page_masses;
};

// A conversation without end: when the decoder's window is full, its oldest half becomes chunks that the encoder reads,
// and the rest is read again behind them. What follows equals starting anew with that arrangement.
struct Endless {
  context::ContextStore* store = nullptr;  // must outlive the request; nullptr = generation ends with the window
  int64_t keep_first = 0;                  // first tokens of the window that stay (BOS)
  int64_t window = 0;                      // tokens that the decoder reads itself; 0 = the model's positions
};

struct Request {
  std::vector<text::Token> prompt;  // at least one token
  Sampling sampling;
  int64_t max_tokens = 128;                  // an answer of none ends at once, without a pass
  std::vector<std::string> stop;             // generation ends before the first of these; empty ones mean nothing
  std::vector<text::Token> end_tokens;       // end-of-sequence ids
  int64_t log_probabilities = -1;            // how many alternatives; -1 = none at all
  std::function<bool(const Step&)> on_step;  // called a token; false ends that answer. May cancel requests

  ContextPointer context;    // from Engine::prepare; nullptr = the engine's own
  int64_t priority = 0;      // larger goes first
  int64_t samples = 1;       // answers, drawn with seeds seed, seed + 1, ...: the prompt is read once for all, as long
                             // as there is room in the cache for its rows
  bool attribution = false;  // page_masses
  Endless endless;
  std::function<void(const Completion&)> on_finish;  // called once an answer
};

}  // namespace cepe::engine
