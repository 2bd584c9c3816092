// The passes of a step through the decoder.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "base/log.h"
#include "engine/sampled.h"
#include "engine/token_ids.h"

namespace cepe::engine {

// Passes over these pieces: one by tables for those of one row, where it is taken, one for the others.
// Appends those whose text is read to its end.
void Engine::run(std::vector<Scheduler::Piece> pieces, std::vector<Sampled>& sampled) {
  // Neighbours of one context read it together: in the order in which the contexts first occur.
  std::map<const model::ContextStates*, size_t> places;
  for (const Scheduler::Piece& piece : pieces)
    places.emplace(sequence_of(*piece.sequence).context.get(), places.size());
  std::stable_sort(pieces.begin(), pieces.end(), [&](const Scheduler::Piece& a, const Scheduler::Piece& b) {
    return places.at(sequence_of(*a.sequence).context.get()) < places.at(sequence_of(*b.sequence).context.get());
  });
  const auto decoding = std::stable_partition(pieces.begin(), pieces.end(),
                                              [&](const Scheduler::Piece& piece) { return !takes_step(piece); });
  const std::span<const Scheduler::Piece> steps(decoding, pieces.end());
  count_passes(std::span(pieces).first(pieces.size() - steps.size()));
  count_passes(steps);
  if (!steps.empty() && run_step(steps, sampled)) pieces.erase(decoding, pieces.end());
  if (!pieces.empty()) run_pieces(pieces, sampled);
}

// What these passes lose by contexts without K and V; neighbours of one context read it together.
void Engine::count_passes(std::span<const Scheduler::Piece> pieces) {
  if (options_.path != model::CrossAttentionPath::automatic || options_.batch_invariant) return;
  for (size_t i = 0; i < pieces.size();) {
    const ContextPointer& context = sequence_of(*pieces[i].sequence).context;
    int64_t rows = 0;
    for (; i < pieces.size() && sequence_of(*pieces[i].sequence).context == context; ++i) rows += pieces[i].count;
    hot_.count(context, rows);
  }
}

// Whether the piece is one row, of a sequence that decodes or reads again what it had generated: the same way both
// times, since the two kinds of passes round differently.
bool Engine::takes_step(const Scheduler::Piece& piece) {
  if (!by_tables_ || piece.count != 1) return false;
  const Sequence& sequence = sequence_of(*piece.sequence);
  return model::BatchStep::takes(*model_, *sequence.context);
}

// False where there is no memory to record it: then never again.
bool Engine::run_step(std::span<const Scheduler::Piece> pieces, std::vector<Sampled>& sampled) {
  if (!batch_step_) {
    if (!model::BatchStep::takes(*model_, cache_)) return false;
    batch_step_ =
        std::make_unique<model::BatchStep>(*model_, cache_, block_rows, padding_block_ * block_rows, options_.path);
  }
  std::vector<model::BatchStep::Row> rows;
  std::vector<text::Token> tokens;
  for (const Scheduler::Piece& piece : pieces) {
    const Sequence& sequence = sequence_of(*piece.sequence);
    const bool asks = sequence.job->request.attribution && piece.sequence->pending() == 1;
    rows.push_back({piece.sequence->cached, piece.sequence->blocks, sequence.context.get(), asks});
    tokens.push_back(sequence.tokens[static_cast<size_t>(piece.sequence->cached)]);
  }
  at::Tensor logits;
  try {
    logits = batch_step_->logits(token_tensor(tokens, at::kCPU), rows);
  } catch (const c10::OutOfMemoryError&) {
    base::detail("engine: no memory to record a step of " + std::to_string(rows.size()) + " sequences");
    batch_step_.reset();
    by_tables_ = false;
    return false;
  }
  if (options_.batch_invariant) logits = logits.clone();  // the next sequence's overwrites it
  ++counters_.steps;
  ++counters_.steps_by_tables;
  counters_.rows += static_cast<int64_t>(rows.size());
  at::Tensor masses = batch_step_->page_masses();
  if (masses.defined()) masses = masses.to(at::kCPU);
  const float* mass = masses.defined() ? masses.const_data_ptr<float>() : nullptr;
  for (size_t i = 0; i < pieces.size(); ++i) {
    Scheduled& scheduled = *pieces[i].sequence;
    ++scheduled.cached;
    if (scheduled.pending() > 0) continue;
    sampled.push_back({&sequence_of(scheduled), logits.narrow(0, static_cast<int64_t>(i), 1), {}});
    if (!rows[i].asks_masses || rows[i].context->rows == 0) continue;
    const float* const next = mass + rows[i].context->pages.size();
    sampled.back().masses.assign(mass, next);
    mass = next;
  }
  return true;
}

// One pass over the whole pieces, by the host's numbers.
void Engine::run_pieces(std::span<const Scheduler::Piece> pieces, std::vector<Sampled>& sampled) {
  std::vector<model::PagedPiece> rows;
  std::vector<const model::ContextStates*> contexts;
  std::vector<model::ContextMass> masses(pieces.size());
  std::vector<model::ContextMass*> wanted(pieces.size(), nullptr);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Scheduled& scheduled = *pieces[i].sequence;
    const Sequence& sequence = sequence_of(scheduled);
    rows.push_back({std::span(sequence.tokens)
                        .subspan(static_cast<size_t>(scheduled.cached), static_cast<size_t>(pieces[i].count)),
                    scheduled.cached, scheduled.blocks});
    contexts.push_back(sequence.context.get());
    if (sequence.job->request.attribution && scheduled.pending() == pieces[i].count) wanted[i] = &masses[i];
  }
  model::CrossAttentionInput input = cross(std::move(contexts));
  input.masses = wanted;
  model::BatchLayout layout = model::paged_layout(rows, block_rows, model_->decoder.device());
  layout.by_block = options_.batch_invariant;
  const at::Tensor hidden = model::forward(model_->decoder, layout, &cache_, input);
  ++counters_.steps;
  counters_.rows += hidden.size(0);

  std::vector<at::Tensor> last;
  const size_t first = sampled.size();
  for (size_t i = 0; i < pieces.size(); ++i) {
    Scheduled& scheduled = *pieces[i].sequence;
    scheduled.cached += pieces[i].count;
    if (scheduled.pending() > 0) continue;
    const model::SequenceRows& at = layout.sequences[i];
    last.push_back(hidden.narrow(0, at.first + at.count - 1, 1));
    Sampled next = {&sequence_of(scheduled), {}, {}};
    if (masses[i].layers > 0) {
      const at::Tensor mean = masses[i].sum.div(static_cast<double>(masses[i].layers)).to(at::kCPU).contiguous();
      next.masses.assign(mean.const_data_ptr<float>(), mean.const_data_ptr<float>() + mean.numel());
    }
    sampled.push_back(std::move(next));
  }
  if (last.empty()) return;
  const at::Tensor logits = model::logits(model_->decoder, last.size() == 1 ? last.front() : at::cat(last, 0));
  for (size_t i = first; i < sampled.size(); ++i)
    sampled[i].logits = logits.narrow(0, static_cast<int64_t>(i - first), 1);
}

}  // namespace cepe::engine
