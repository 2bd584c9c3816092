#include "eval/engine_scorer.h"

#include "base/error.h"

namespace cepe::eval {

engine::EngineOptions scoring_options(int64_t decoder_tokens, int64_t direct_tokens) {
  engine::EngineOptions options;
  options.kept_bytes = 0;
  options.prefill_rows = direct_tokens + decoder_tokens;
  options.scores_beyond_positions = direct_tokens > 0;
  return options;
}

Scorer engine_scorer(engine::Engine& engine, context::ContextStore* store) {
  return
      [&engine, store](std::span<const context::Chunk> chunks, std::span<const text::Token> window, int64_t targets) {
        if (!chunks.empty() && !store)
          throw base::Error(base::ErrorCode::invalid_argument, "a context needs an adapter, and this model has none");
        engine.set_context(chunks.empty() ? model::ContextStates{} : store->get_or_encode(chunks));
        const at::Tensor scores = engine.score(window, static_cast<int64_t>(window.size()) - 1 - targets).contiguous();
        const float* first = scores.const_data_ptr<float>();
        return std::vector<float>(first, first + scores.numel());
      };
}

}  // namespace cepe::eval
