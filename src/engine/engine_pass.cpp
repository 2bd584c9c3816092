// The passes of a step through the decoder.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "base/log.h"
#include "engine/sampled.h"
#include "engine/token_ids.h"
#include "ops/device.h"

namespace cepe::engine {
namespace {

// Rows of texts in a step by tables, at most, and rows of the cache that their self-attention may read again: each row
// is a sequence of its own there, and reads what the row before it read (8,192 rows of Llama-2-7B are 134 MB, a third
// of the weights of a layer).
constexpr int64_t most_text_rows = 128, most_rows_again = 8192;

}  // namespace

// Passes over these pieces: one by tables for those that it is for, one for the others. Appends those whose text is
// read to its end.
void Engine::run(std::vector<Scheduler::Piece> pieces, std::vector<Sampled>& sampled) {
  // Neighbours of one context read it together: in the order in which the contexts first occur.
  std::map<const model::ContextStates*, size_t> places;
  for (const Scheduler::Piece& piece : pieces)
    places.emplace(sequence_of(*piece.sequence).context.get(), places.size());
  std::stable_sort(pieces.begin(), pieces.end(), [&](const Scheduler::Piece& a, const Scheduler::Piece& b) {
    return places.at(sequence_of(*a.sequence).context.get()) < places.at(sequence_of(*b.sequence).context.get());
  });
  auto [steps, others] = parted(pieces);
  count_passes(others);
  count_passes(steps);
  if (!steps.empty() && !run_step(steps, sampled)) others.insert(others.end(), steps.begin(), steps.end());
  if (!others.empty()) run_pieces(others, sampled);
}

// Those that go by tables, those that do not, both in their order. A step reads K and V of its contexts only where it
// reads those of all: a text that would have it otherwise goes by itself.
std::pair<std::vector<Scheduler::Piece>, std::vector<Scheduler::Piece>> Engine::parted(
    std::span<const Scheduler::Piece> pieces) {
  const auto context_of = [&](const Scheduler::Piece& piece) -> const model::ContextStates& {
    return *sequence_of(*piece.sequence).context;
  };
  std::optional<bool> reads_kept;
  for (const Scheduler::Piece& piece : pieces) {
    if (piece.count == 1 && context_of(piece).rows > 0)
      reads_kept = reads_kept.value_or(true) && !context_of(piece).kept.empty();
  }
  std::vector<Scheduler::Piece> steps, others;
  int64_t text_rows = 0, rows_again = 0;
  const auto admits = [&](const Scheduler::Piece& text) {
    const int64_t again = (text.count - 1) * (text.sequence->cached + text.count);
    const model::ContextStates& context = context_of(text);
    const bool has_kept = !context.kept.empty();
    if (text_rows + text.count > most_text_rows || rows_again + again > most_rows_again ||
        (context.rows > 0 && reads_kept.value_or(has_kept) != has_kept))
      return false;
    text_rows += text.count;
    rows_again += again;
    if (context.rows > 0) reads_kept = has_kept;
    return true;
  };
  for (const Scheduler::Piece& piece : pieces)
    (takes_step(piece) && (piece.count == 1 || admits(piece)) ? steps : others).push_back(piece);
  return {std::move(steps), std::move(others)};
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

// Whether the piece goes by tables: one row, of a sequence that decodes or reads again what it had generated (the same
// way both times, since the two kinds of passes round differently), or a text for which no other way is cheaper.
bool Engine::takes_step(const Scheduler::Piece& piece) {
  const model::ContextStates& context = *sequence_of(*piece.sequence).context;
  if (!by_tables_ || !model::BatchStep::takes(*model_, context)) return false;
  if (piece.count == 1) return true;
  return texts_by_tables_ && model::BatchStep::takes_together(*model_, context, piece.count, options_.path);
}

// False where there is no memory to record it (batch-invariant, that is an error): texts are no longer taken then, and
// if they were not, nothing is.
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
    const int64_t end = piece.sequence->cached + piece.count;
    for (int64_t row = piece.sequence->cached; row < end; ++row) {
      const bool last = row + 1 == piece.sequence->length;
      rows.push_back(
          {row, piece.sequence->blocks, sequence.context.get(), last && sequence.job->request.attribution, last});
      tokens.push_back(sequence.tokens[static_cast<size_t>(row)]);
    }
  }
  at::Tensor logits;
  try {
    logits = batch_step_->logits(token_tensor(tokens, at::kCPU), rows);
  } catch (const std::exception& error) {
    if (!ops::is_out_of_memory(error) || options_.batch_invariant) throw;  // the other way rounds differently
    base::detail("engine: no memory to record a step of " + std::to_string(rows.size()) + " rows");
    batch_step_.reset();
    by_tables_ = std::exchange(texts_by_tables_, false);
    return false;
  }
  if (options_.batch_invariant) logits = logits.clone();  // the next sequence's overwrites it
  ++counters_.steps;
  ++counters_.steps_by_tables;
  counters_.rows += static_cast<int64_t>(rows.size());
  at::Tensor masses = batch_step_->page_masses();
  if (masses.defined()) masses = masses.to(at::kCPU);
  const float* mass = masses.defined() ? masses.const_data_ptr<float>() : nullptr;
  int64_t end = 0, asked = 0;  // of the piece's rows, and of those that asked
  for (const Scheduler::Piece& piece : pieces) {
    end += piece.count;
    piece.sequence->cached += piece.count;
    if (piece.sequence->pending() > 0) continue;
    sampled.push_back({&sequence_of(*piece.sequence), logits.narrow(0, asked++, 1), {}});
    const model::BatchStep::Row& last = rows[static_cast<size_t>(end - 1)];
    if (!last.asks_masses || last.context->rows == 0) continue;
    const float* const next = mass + last.context->pages.size();
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
  std::vector<Sampled> read;  // to their end
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Scheduled& scheduled = *pieces[i].sequence;
    if (scheduled.pending() > pieces[i].count) continue;
    const model::SequenceRows& at = layout.sequences[i];
    last.push_back(hidden.narrow(0, at.first + at.count - 1, 1));
    Sampled next = {&sequence_of(scheduled), {}, {}};
    if (masses[i].layers > 0) {
      const at::Tensor mean = masses[i].sum.div(static_cast<double>(masses[i].layers)).to(at::kCPU).contiguous();
      next.masses.assign(mean.const_data_ptr<float>(), mean.const_data_ptr<float>() + mean.numel());
    }
    read.push_back(std::move(next));
  }
  if (!last.empty()) {
    const at::Tensor logits = model::logits(model_->decoder, last.size() == 1 ? last.front() : at::cat(last, 0));
    for (size_t i = 0; i < read.size(); ++i) read[i].logits = logits.narrow(0, static_cast<int64_t>(i), 1);
  }
  // Nothing fails from here on: a row counts as computed where what it leaves is there.
  for (const Scheduler::Piece& piece : pieces) piece.sequence->cached += piece.count;
  std::ranges::move(read, std::back_inserter(sampled));
}

}  // namespace cepe::engine
