// Generation and scoring for one sequence at a time: prefill, then decode, over a context of encoder states.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/sampler.h"
#include "model/cepe_model.h"
#include "text/tokenizer.h"

namespace cepe::engine {

struct EngineOptions {
  model::CrossAttentionPath path = model::CrossAttentionPath::automatic;
  int64_t kept_bytes = -1;  // budget for K and V of the context in all layers; 0 = never, -1 = 40 % of free memory
  int64_t prefill_rows =
      2048;  // tokens of the prompt in one pass: where K and V are not kept, each pass projects them anew
  bool scores_beyond_positions = false;  // whether a text longer than the model's positions may be scored; learned
                                         // positions end all the same
};

struct Step {
  text::Token token = 0;
  std::string text;                                    // what is now certain, maybe empty
  std::vector<TokenLogProbability> log_probabilities;  // [0] the token itself, then the best; empty unless asked for
};

struct Request {
  std::vector<text::Token> prompt;  // at least one token
  Sampling sampling;
  int64_t max_tokens = 128;
  std::vector<std::string> stop;             // generation ends before the first of these
  std::vector<text::Token> end_tokens;       // end-of-sequence ids
  int64_t log_probabilities = -1;            // how many alternatives; -1 = none at all
  std::function<bool(const Step&)> on_step;  // called a token; false ends generation
};

enum class Finish { stop, length, window, cancelled };  // window: the decoder's positions are used up
std::string_view name_of(Finish finish);

struct Completion {
  std::vector<text::Token> tokens;
  std::string text;  // without the stop string
  Finish finish = Finish::length;
  std::vector<std::vector<TokenLogProbability>> log_probabilities;
  double prefill_seconds = 0;  // from the call to the first token
  double decode_seconds = 0;   // all further tokens
};

class Engine {
 public:
  // Model and tokenizer must outlive the engine.
  Engine(const model::CepeModel& model, const text::Tokenizer& tokenizer, EngineOptions options = {});

  // The context all further requests attend to (an empty one = none). Where the cost model says so and the budget
  // allows, K and V of all layers are projected now and kept. Errors: invalid_argument without an adapter.
  void set_context(model::ContextStates context);
  const model::ContextStates& context() const { return context_; }

  // Errors: invalid_argument (empty prompt, prompt longer than the model's positions, sampling out of range).
  Completion generate(const Request& request) const;

  // ln p(ids[t + 1] | ids[0..t], context) for t = first .. T-2: [T - 1 - first] float32. In pieces of prefill_rows, so
  // that logits stay small.
  at::Tensor score(std::span<const text::Token> ids, int64_t first = 0) const;

 private:
  model::CrossAttentionInput cross() const;
  model::KvCache make_cache(int64_t slots) const;
  at::Tensor prefill(std::span<const text::Token> ids, model::KvCache& cache) const;  // hidden of the last row [1, C]

  const model::CepeModel* model_;
  const text::Tokenizer* tokenizer_;
  EngineOptions options_;
  model::ContextStates context_;
};

}  // namespace cepe::engine
