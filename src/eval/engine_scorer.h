// The scorer of evaluations that run on the engine, as answers do.
#pragma once

#include "context/context_store.h"
#include "engine/engine.h"
#include "eval/perplexity.h"

namespace cepe::eval {

// How an engine scores windows of so many tokens. Each context is read by one window only: its K and V are not kept but
// projected layer by layer in one pass, and peak memory stays that of the states and one layer. With direct tokens in
// front of the window the two may exceed the positions of a decoder with rotary ones.
engine::EngineOptions scoring_options(int64_t decoder_tokens, int64_t direct_tokens = 0);

// Chunks are encoded through the store (nullptr: without an adapter only windows without context can be scored). Both
// must outlive the scorer; it sets the engine's context. Errors: those of the store and the engine; invalid_argument
// for chunks without a store.
Scorer engine_scorer(engine::Engine& engine, context::ContextStore* store);

}  // namespace cepe::eval
