#include "context/projection_store.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "model/page_projections.h"
#include "ops/large_pages.h"

namespace cepe::context {
namespace {

constexpr int64_t bytes_at_once = int64_t{32} << 20;  // written
constexpr size_t pages_at_once = 32;

// Answers go before what is written for later ones.
void give_way() {
  thread_local const int done = ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 19);
  static_cast<void>(done);
}

ChunkKey key_of(const base::Digest& page, const base::Digest& fingerprint) {
  base::Sha256 hash;
  hash.update(fingerprint);
  hash.update(page);
  return hash.finish();
}

}  // namespace

ProjectionStore::ProjectionStore(const model::CepeModel& model, ProjectionStoreOptions options)
    : model_(model), options_(std::move(options)) {
  if (options_.max_bytes < 0)
    throw base::Error(base::ErrorCode::invalid_argument,
                      "a budget of " + std::to_string(options_.max_bytes) + " bytes for keys and values on disk");
  writer_.emplace(bytes_at_once, [this](const std::vector<PendingRecord>& records) { write(records); });
}

ProjectionStore::~ProjectionStore() {
  flush();
  writer_.reset();
}

// Of each page of the context what is kept of it, in places that one piece of memory has; nothing where it is not to be
// kept.
std::vector<PendingRecord> ProjectionStore::records_of(const model::ContextStates& context) {
  if (context.keys.size() != context.pages.size()) return {};
  int64_t bytes = 0;
  for (const at::Tensor& page : context.pages) bytes += model::page_projection_form(model_, page.size(0)).bytes();
  if (bytes < options_.least_bytes || bytes > options_.max_bytes) return {};
  if (!fingerprint_) fingerprint_ = projection_fingerprint(model_);
  const at::Tensor all = at::empty({bytes}, at::kByte);
  ops::prefer_large_pages(all);
  std::vector<PendingRecord> records(context.pages.size());
  const int64_t start = wall_clock();
  int64_t place = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    const model::PageProjectionForm form = model::page_projection_form(model_, context.pages[i].size(0));
    records[i].key = key_of(context.keys[i], *fingerprint_);
    records[i].shape = {RecordShape::Type::bytes, form.blocks, form.block_bytes};
    records[i].packed = all.narrow(0, place, form.bytes()).view({form.blocks, form.block_bytes});
    records[i].keep_since = start;
    place += form.bytes();
  }
  return records;
}

// All that the disk has of them, unless it turns out to be slower than making them.
std::vector<ProjectionStore::Found> ProjectionStore::read(const std::vector<PendingRecord>& records) {
  std::vector<Found> found(records.size(), Found::not_looked_for);
  const auto start = std::chrono::steady_clock::now();
  int64_t bytes = 0;
  for (size_t first = 0; first < records.size(); first += pages_at_once) {
    base::throw_if_interrupted();
    const size_t end = std::min(first + pages_at_once, records.size());
    at::parallel_for(static_cast<int64_t>(first), static_cast<int64_t>(end), 1, [&](int64_t begin, int64_t last) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(last); ++i)
        found[i] = disk_->read(records[i].key, records[i].shape, writable_bytes_of(records[i].packed)) ? Found::yes
                                                                                                       : Found::no;
    });
    for (size_t i = first; i < end; ++i) bytes += found[i] == Found::yes ? records[i].packed.numel() : 0;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (bytes >= options_.bytes_to_judge &&
        static_cast<double>(bytes) < seconds * static_cast<double>(options_.least_bytes_a_second))
      break;
  }
  return found;
}

void ProjectionStore::keep(model::ContextStates& context) {
  const at::NoGradGuard none;
  std::vector<PendingRecord> records = records_of(context);
  if (records.empty()) {
    model::keep_projections(context, model::cross_attention_blocks(model_), model::head_shape(model_.decoder.config),
                            at::kByte);
    return;
  }
  if (!disk_)
    disk_.emplace(DiskTierOptions{.folder = options_.folder, .max_bytes = options_.max_bytes, .synced = false});
  const std::vector<Found> found = read(records);
  std::vector<at::Tensor> places;
  std::vector<bool> are_there;
  for (size_t i = 0; i < records.size(); ++i) {
    places.push_back(records[i].packed);
    are_there.push_back(found[i] == Found::yes);
    ++(are_there.back() ? counters_.read : counters_.made);
  }
  model::keep_projections_in(places, are_there, model_, context);
  std::vector<PendingRecord> missing;
  for (size_t i = 0; i < records.size(); ++i)
    if (found[i] == Found::no) missing.push_back(std::move(records[i]));
  if (missing.empty()) return;
  {
    const std::scoped_lock lock(mutex_);
    pushed_ += static_cast<int64_t>(missing.size());
  }
  writer_->push(std::move(missing));
}

void ProjectionStore::write(const std::vector<PendingRecord>& records) {
  give_way();
  std::vector<DiskTier::Item> items;
  items.reserve(records.size());
  for (const PendingRecord& record : records)
    items.push_back({record.key, record.shape, bytes_of(record.packed), record.source});
  if (!base::interrupted()) disk_->write(items, records.front().keep_since);
  {
    const std::scoped_lock lock(mutex_);
    written_ += static_cast<int64_t>(records.size());
  }
  written_changed_.notify_all();
}

void ProjectionStore::flush() {
  std::unique_lock lock(mutex_);
  if (written_ < pushed_) {
    base::Progress progress("keeping keys and values", pushed_ - written_, "chunks");
    while (written_ < pushed_ && !base::interrupted()) {
      const int64_t before = written_;
      written_changed_.wait_for(lock, std::chrono::milliseconds(100));
      progress.advance(written_ - before);
    }
  }
  lock.unlock();
  if (disk_) disk_->flush();
}

}  // namespace cepe::context
