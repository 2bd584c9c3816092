#include "context/context_store.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "context/disk_store.h"
#include "context/record_folder.h"
#include "ops/device.h"

namespace cepe::context {
namespace {

using base::ErrorCode;

// A chunk of a request, once however often it is named.
struct Page {
  const Chunk* chunk;
  ChunkKey key;
  at::Tensor states;  // [S, E] of the stored type on the encoder's device; undefined while it is missing

  int64_t tokens() const { return static_cast<int64_t>(chunk->ids.size()); }
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int64_t tokens_of(std::span<Page* const> pages) {
  int64_t tokens = 0;
  for (const Page* page : pages) tokens += page->tokens();
  return tokens;
}

bool is_dense_float32(const model::Linear& linear) {
  return !linear.packed && linear.weight.defined() && linear.weight.scalar_type() == at::kFloat;
}

void check(const Chunk& chunk, int64_t vocabulary) {
  const std::string document = "document " + std::to_string(chunk.document);
  if (chunk.ids.empty()) throw base::Error(ErrorCode::invalid_argument, document + " has a chunk without tokens");
  for (const text::Token id : chunk.ids) {
    if (id >= 0 && id < vocabulary) continue;
    throw base::Error(ErrorCode::invalid_argument, document + " has token " + std::to_string(id) +
                                                       "; the encoder's vocabulary goes from 0 to " +
                                                       std::to_string(vocabulary - 1));
  }
}

// Chunks of one length, at most `most`, that go through the encoder together: no padding.
std::vector<std::vector<Page*>> batches_of(std::vector<Page>& pages, int64_t most) {
  std::map<int64_t, std::vector<Page*>, std::greater<>> by_length;  // the full ones first
  for (Page& page : pages)
    if (!page.states.defined()) by_length[page.tokens()].push_back(&page);
  std::vector<std::vector<Page*>> batches;
  for (const auto& [length, missing] : by_length) {
    for (size_t first = 0; first < missing.size(); first += static_cast<size_t>(most)) {
      const size_t count = std::min(static_cast<size_t>(most), missing.size() - first);
      const auto begin = missing.begin() + static_cast<std::ptrdiff_t>(first);
      batches.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(count));
    }
  }
  return batches;
}

// [n, S] int64.
at::Tensor ids_of(std::span<Page* const> batch) {
  at::Tensor ids = at::empty({static_cast<int64_t>(batch.size()), batch[0]->tokens()}, at::kLong);
  auto* place = ids.mutable_data_ptr<int64_t>();
  for (const Page* page : batch) place = std::copy(page->chunk->ids.begin(), page->chunk->ids.end(), place);
  return ids;
}

}  // namespace

struct ContextStore::State {
  const model::Encoder& encoder;
  StoreOptions options;
  at::ScalarType type;
  at::Device device;
  int64_t vocabulary;
  std::optional<DiskStore> disk;
  base::Digest fingerprint{};
  StoreCounters counters;

  State(const model::Encoder& encoder_read, StoreOptions chosen)
      : encoder(encoder_read),
        options(std::move(chosen)),
        type(stored_type(encoder)),
        device(encoder.norm.weight.device()),
        vocabulary(encoder.embedding.out_features()) {
    if (encoder.config.vocabulary > 0) vocabulary = std::min(vocabulary, encoder.config.vocabulary);
    if (options.chunks_per_batch < 1) {
      throw base::Error(ErrorCode::invalid_argument,
                        std::to_string(options.chunks_per_batch) + " chunks per batch; it must be at least 1");
    }
    if (options.folder.empty()) return;
    disk.emplace(options.folder, options.max_bytes);
    fingerprint = encoder_fingerprint(encoder);
  }

  RecordShape shape_of(const Page& page) const {
    return {type == at::kFloat ? RecordShape::Type::float32 : RecordShape::Type::bfloat16, page.tokens(),
            encoder.config.width};
  }

  void read(std::vector<Page>& pages);
  bool read(Page& page);
  void encode(std::vector<Page>& pages);
  void encode_batch(std::span<Page* const> batch);
};

bool ContextStore::State::read(Page& page) {
  const at::Tensor states = at::empty({page.tokens(), encoder.config.width}, type);
  const std::span bytes(static_cast<std::byte*>(states.mutable_data_ptr()), states.nbytes());
  if (!disk->read(page.key, shape_of(page), bytes)) return false;
  page.states = states.to(device);
  return true;
}

void ContextStore::State::read(std::vector<Page>& pages) {
  if (!disk) return;
  disk->begin_request();
  const auto start = std::chrono::steady_clock::now();
  std::optional<base::Progress> progress;  // only where it takes long
  for (size_t i = 0; i < pages.size(); ++i) {
    base::throw_if_interrupted();
    read(pages[i]);
    if (progress) progress->advance(1);
    if (!progress && seconds_since(start) > 1)
      progress.emplace("reading kept chunks", static_cast<int64_t>(pages.size() - i - 1), "chunks");
  }
  counters.read_seconds += seconds_since(start);
}

void ContextStore::State::encode_batch(std::span<Page* const> batch) {
  const auto start = std::chrono::steady_clock::now();
  const at::Tensor states = model::forward(encoder, ids_of(batch).to(device)).to(type).contiguous();  // [n, S, E]
  const at::Tensor on_host = disk ? states.cpu() : states;
  counters.encode_seconds += seconds_since(start);
  for (size_t i = 0; i < batch.size(); ++i) {
    const auto n = static_cast<int64_t>(i);
    batch[i]->states = states.select(0, n);
    if (!disk) continue;
    const at::Tensor page = on_host.select(0, n);
    disk->write(batch[i]->key, shape_of(*batch[i]),
                {static_cast<const std::byte*>(page.const_data_ptr()), page.nbytes()});
  }
  counters.encoded += static_cast<int64_t>(batch.size());
  counters.encoded_tokens += tokens_of(batch);
}

void ContextStore::State::encode(std::vector<Page>& pages) {
  const std::vector<std::vector<Page*>> batches = batches_of(pages, options.chunks_per_batch);
  int64_t tokens = 0;
  for (const std::vector<Page*>& batch : batches) tokens += tokens_of(batch);
  base::Progress progress("encoding", tokens, "tokens");
  for (const std::vector<Page*>& batch : batches) {
    base::throw_if_interrupted();
    encode_batch(batch);
    progress.advance(tokens_of(batch));
  }
  // A GPU may still be at it: asking for a batch takes less time than the batch.
  const auto start = std::chrono::steady_clock::now();
  ops::synchronise(device);
  counters.encode_seconds += seconds_since(start);
}

ContextStore::ContextStore(const model::Adapter& adapter, StoreOptions options)
    : state_(std::make_unique<State>(adapter.encoder, std::move(options))) {}
ContextStore::~ContextStore() = default;

model::ContextStates ContextStore::get_or_encode(std::span<const Chunk> chunks) {
  const at::NoGradGuard no_gradients;
  for (const Chunk& chunk : chunks) check(chunk, state_->vocabulary);
  std::vector<Page> pages;
  std::vector<size_t> order;  // page of each chunk
  std::map<ChunkKey, size_t> known;
  for (const Chunk& chunk : chunks) {
    const ChunkKey key = key_of(chunk.ids, state_->fingerprint);
    const auto [place, is_new] = known.emplace(key, pages.size());
    if (is_new) pages.push_back({&chunk, key, {}});
    order.push_back(place->second);
  }
  StoreCounters& counters = state_->counters;
  const int64_t encoded = counters.encoded, encoded_tokens = counters.encoded_tokens;
  state_->read(pages);
  state_->encode(pages);
  model::ContextStates context;
  for (const size_t page : order) context.append(pages[page].states);
  counters.found += static_cast<int64_t>(chunks.size()) - (counters.encoded - encoded);
  counters.found_tokens += context.rows - (counters.encoded_tokens - encoded_tokens);
  return context;
}

const StoreCounters& ContextStore::counters() const { return state_->counters; }

at::ScalarType stored_type(const model::Encoder& encoder) {
  if (encoder.activation_type != at::kFloat || !is_dense_float32(encoder.embedding)) return at::kBFloat16;
  const auto exact = [](const model::EncoderLayer& layer) {
    return is_dense_float32(layer.query_key_value) && is_dense_float32(layer.output) &&
           is_dense_float32(layer.feed_forward.gate_up) && is_dense_float32(layer.feed_forward.down);
  };
  return std::all_of(encoder.layers.begin(), encoder.layers.end(), exact) ? at::kFloat : at::kBFloat16;
}

StoreUsage store_usage(const base::Path& folder) {
  const StoredRecords stored = stored_records(folder);
  return {stored.records, stored.bytes};
}

StoreUsage clear_store(const base::Path& folder) {
  const StoredRecords removed = remove_records(folder);
  return {removed.records, removed.bytes};
}

}  // namespace cepe::context
