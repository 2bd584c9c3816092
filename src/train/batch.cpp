#include "train/batch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <array>
#include <random>

#include "base/error.h"
#include "data/masking.h"

namespace cepe::train {
namespace {

using Slice = model::SharedContext::Slice;

// Numbers for one micro-batch; no std:: distribution, since those differ between standard libraries.
class Draws {
 public:
  Draws(uint64_t seed, uint64_t first) {
    std::seed_seq seeds = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), static_cast<uint32_t>(first),
                           static_cast<uint32_t>(first >> 32)};
    random_.seed(seeds);
  }
  bool happens(double probability) { return static_cast<double>(random_() >> 11) * 0x1p-53 < probability; }
  int64_t below(int64_t count) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(count)); }

 private:
  std::mt19937_64 random_;
};

at::Tensor by_window(const Batch& batch, const at::Tensor& rows) {
  return rows.reshape({-1, batch.windows, batch.decoder_tokens}).transpose(0, 1).reshape({-1, batch.decoder_tokens});
}

void mask_tokens(Batch& batch, const BatchRequest& request, uint64_t first) {
  batch.labels = at::empty_like(batch.tokens);
  for (int64_t b = 0; b < batch.tokens.size(0); ++b) {
    std::vector<text::Token> ids(static_cast<size_t>(batch.tokens.size(1)));
    at::Tensor row = batch.tokens[b], labels = batch.labels[b];
    std::copy_n(row.const_data_ptr<int64_t>(), ids.size(), ids.begin());
    const data::MaskedTokens masked =
        data::mask_tokens(ids, request.mask, request.mask_token, request.seed, first + static_cast<uint64_t>(b));
    std::copy(masked.ids.begin(), masked.ids.end(), row.mutable_data_ptr<int64_t>());
    std::copy(masked.labels.begin(), masked.labels.end(), labels.mutable_data_ptr<int64_t>());
  }
}

at::Tensor context_mask(const Batch& batch, const BatchRequest& request, uint64_t first) {
  const int64_t chunks = batch.encoded_tokens() / request.chunk_size, count = batch.tokens.size(0);
  at::Tensor mask = at::empty({count, chunks, request.chunk_size}, at::kByte);
  for (int64_t b = 0; b < count; ++b) {
    const std::vector<uint8_t> one =
        data::mask_context(chunks, request.chunk_size, request.phase.mask, request.phase.mask_whole, request.seed,
                           first + static_cast<uint64_t>(b));
    std::copy(one.begin(), one.end(), mask[b].mutable_data_ptr<uint8_t>());
  }
  return mask;
}

// A corpus may be of a larger vocabulary than a model, as long as it does not use it.
void check_ids(const std::vector<text::Token>& ids, int64_t vocabulary) {
  const text::Token largest = *std::max_element(ids.begin(), ids.end());
  if (vocabulary == 0 || largest < vocabulary) return;
  throw base::Error(base::ErrorCode::invalid_argument,
                    "token " + std::to_string(largest) + " of the corpus is beyond the model's vocabulary of " +
                        std::to_string(vocabulary) + "; was the corpus made with another model's tokenizer?");
}

Batch empty_batch(const PhaseSettings& phase, int64_t count) {
  return {.tokens = at::empty({count, sample_tokens(phase)}, at::kLong),
          .context_tokens = phase.context_tokens,
          .decoder_tokens = phase.decoder_tokens,
          .windows = phase.windows};
}

// What is seen of it, once the tokens are there.
void complete(Batch& batch, const BatchRequest& request, uint64_t first, at::Device device) {
  const PhaseSettings& phase = request.phase;
  if (request.stage == Stage::mlm) mask_tokens(batch, request, first);
  if (request.stage == Stage::warmup) batch.slices = {{0, phase.decoder_tokens, 0}};
  if (request.stage == Stage::cepe || request.stage == Stage::ceped)
    batch.slices = varied(phase, request.chunk_size, request.seed, first);
  if (phase.mask > 0 && batch.encoded_tokens() > 0) batch.context_mask = context_mask(batch, request, first).to(device);
  for (at::Tensor* part : {&batch.tokens, &batch.labels, &batch.teacher_probabilities, &batch.teacher_indices})
    if (part->defined()) *part = part->to(device);
}

}  // namespace

int64_t sample_tokens(const PhaseSettings& phase) {
  return phase.context_tokens + phase.windows * phase.decoder_tokens;
}

std::vector<Slice> all_before(const PhaseSettings& phase) {
  std::vector<Slice> slices;
  for (int64_t w = 0; w < phase.windows; ++w) slices.push_back({0, phase.context_tokens + w * phase.decoder_tokens, 0});
  return slices;
}

std::vector<Slice> varied(const PhaseSettings& phase, int64_t chunk_size, uint64_t seed, uint64_t first) {
  std::vector<Slice> slices = all_before(phase);
  Draws draws(seed, first);
  if (draws.happens(phase.no_context)) return std::vector<Slice>(slices.size());
  const bool shortened = draws.happens(phase.short_context), skips = draws.happens(phase.skipped_nearest);
  constexpr std::array<int64_t, 3> short_chunks = {1, 2, 4};
  const int64_t longest = short_chunks[static_cast<size_t>(draws.below(3))] * chunk_size;
  const int64_t skipped = (1 + draws.below(8)) * chunk_size;
  const bool others = draws.happens(phase.others);
  for (Slice& slice : slices) {
    const int64_t end = std::max<int64_t>(0, slice.rows - (skips ? skipped : 0));
    slice.first = shortened ? std::max<int64_t>(0, end - longest) : 0;
    slice.rows = end - slice.first;
    slice.others = others ? phase.other_tokens : 0;
  }
  return slices;
}

int64_t Batch::encoded_tokens() const {
  int64_t reach = 0;
  for (const Slice& slice : slices) {
    if (slice.rows > 0) reach = std::max(reach, slice.first + slice.rows);
    reach = std::max(reach, slice.others);
  }
  return reach;
}

at::Tensor Batch::window_tokens() const {
  return by_window(*this, tokens.narrow(1, context_tokens, windows * decoder_tokens));
}

at::Tensor Batch::next_tokens() const {
  const int64_t count = windows * decoder_tokens;
  const at::Tensor last = at::full({tokens.size(0), 1}, -100, tokens.options());
  return by_window(*this, at::cat({tokens.narrow(1, context_tokens + 1, count - 1), last}, 1));
}

int64_t Batch::predicted() const { return tokens.size(0) * (windows * decoder_tokens - 1); }

double Batch::weight() const { return labels.defined() ? labels.ne(data::no_label).sum().item<double>() : 1; }

Batch make_batch(const data::Sampler& sampler, const BatchRequest& request, uint64_t first, int64_t count,
                 at::Device device) {
  Batch batch = empty_batch(request.phase, count);
  for (int64_t b = 0; b < count; ++b) {
    const data::Sample sample = sampler.at(first + static_cast<uint64_t>(b));
    check_ids(sample.ids, request.vocabulary);
    std::copy(sample.ids.begin(), sample.ids.end(), batch.tokens[b].mutable_data_ptr<int64_t>());
  }
  complete(batch, request, first, device);
  return batch;
}

Batch make_batch(const data::PreparedSamples& samples, const BatchRequest& request, uint64_t first, int64_t count,
                 at::Device device) {
  Batch batch = empty_batch(request.phase, count);
  const int64_t positions = request.phase.decoder_tokens / 2;
  for (int64_t b = 0; b < count; ++b) {
    const data::PreparedSample sample = samples.at(first + static_cast<uint64_t>(b));
    int64_t* row = batch.tokens[b].mutable_data_ptr<int64_t>();
    std::copy(sample.window.begin(), sample.window.end(), std::copy(sample.context.begin(), sample.context.end(), row));
    if (sample.indices.empty()) continue;
    if (!batch.teacher_indices.defined()) {
      const auto top = static_cast<int64_t>(sample.indices.size()) / positions;
      batch.teacher_indices = at::empty({count, positions, top}, at::kLong);
      batch.teacher_probabilities = at::empty({count, positions, top + 1}, at::kFloat);
    }
    std::copy(sample.indices.begin(), sample.indices.end(), batch.teacher_indices[b].mutable_data_ptr<int64_t>());
    std::copy(sample.probabilities.begin(), sample.probabilities.end(),
              batch.teacher_probabilities[b].mutable_data_ptr<float>());
  }
  complete(batch, request, first, device);
  return batch;
}

}  // namespace cepe::train
