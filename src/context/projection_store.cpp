#include "context/projection_store.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"

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

std::vector<int64_t> rows_of_pages(const model::ContextStates& context) {
  std::vector<int64_t> rows;
  rows.reserve(context.pages.size());
  for (const at::Tensor& page : context.pages) rows.push_back(page.size(0));
  return rows;
}

RecordShape shape_of(const model::CepeModel& model, int64_t rows) {
  const ops::Int8PageForm form = model::page_projection_form(model, rows);
  return {RecordShape::Type::bytes, form.blocks, form.block_bytes};
}

}  // namespace

ProjectionStore::ProjectionStore(const model::CepeModel& model, ProjectionStoreOptions options)
    : model_(model), options_(std::move(options)) {
  if (options_.max_bytes < 0)
    throw base::Error(base::ErrorCode::invalid_argument,
                      "a budget of " + std::to_string(options_.max_bytes) + " bytes for keys and values on disk");
  if (options_.most_waiting_bytes < 0)
    throw base::Error(base::ErrorCode::invalid_argument, "a budget of " + std::to_string(options_.most_waiting_bytes) +
                                                             " bytes for keys and values that wait to be written");
  writer_.emplace(bytes_at_once, [this](const std::vector<PendingRecord>& records) { write(records); });
}

ProjectionStore::~ProjectionStore() {
  flush();
  writer_.reset();
}

bool ProjectionStore::is_worth_it(const model::ContextStates& context, std::span<const int64_t> page_rows) const {
  const int64_t bytes = model::page_projection_bytes(model_, page_rows);
  return context.keys.size() == context.pages.size() && bytes >= options_.least_bytes && bytes <= options_.max_bytes;
}

// Of each page of the context.
std::vector<PendingRecord> ProjectionStore::records_of(const model::ContextStates& context,
                                                       std::span<const int64_t> page_rows, int64_t keep_since) const {
  std::vector<PendingRecord> records(context.pages.size());
  for (size_t i = 0; i < records.size(); ++i) {
    records[i].key = key_of(context.keys[i], *fingerprint_);
    records[i].shape = shape_of(model_, page_rows[i]);
    records[i].keep_since = keep_since;
  }
  return records;
}

// False where the disk has none.
bool ProjectionStore::find_on_disk(PendingRecord& record) {
  const base::FileLayer::Content found = disk_->map(record.key, record.shape);
  if (found.bytes.empty()) return false;
  record.packed = at::from_blob(
      const_cast<std::byte*>(found.bytes.data()), {record.shape.rows, record.shape.width},
      [owner = found.owner](void*) {}, at::kByte);
  return true;
}

void ProjectionStore::open() {
  const std::scoped_lock lock(opening_);
  if (!fingerprint_) fingerprint_ = projection_fingerprint(model_);
  if (!disk_)
    disk_.emplace(DiskTierOptions{.folder = options_.folder, .max_bytes = options_.max_bytes, .synced = false});
}

// Gigabytes wait for minutes where the disk is slow.
std::vector<ProjectionStore::Found> ProjectionStore::find_waiting(std::vector<PendingRecord>& records) {
  std::vector<ChunkKey> keys;
  keys.reserve(records.size());
  for (const PendingRecord& record : records) keys.push_back(record.key);
  const std::vector<at::Tensor> waiting = writer_->find(keys);
  std::vector<Found> found;
  for (size_t i = 0; i < records.size(); ++i) {
    records[i].packed = waiting[i];
    found.push_back(waiting[i].defined() ? Found::yes : Found::not_looked_for);
  }
  return found;
}

// All that waits to be written or the disk has of them, unless it turns out to be slower than making them and an answer
// waits. First what waits: it may get there meanwhile.
std::vector<ProjectionStore::Found> ProjectionStore::find(std::vector<PendingRecord>& records, Patience patience) {
  std::vector<Found> found = find_waiting(records);
  const auto start = std::chrono::steady_clock::now();
  int64_t bytes = 0;
  for (size_t first = 0; first < records.size(); first += pages_at_once) {
    base::throw_if_interrupted();
    const size_t end = std::min(first + pages_at_once, records.size());
    std::atomic<int64_t> read = 0;
    at::parallel_for(static_cast<int64_t>(first), static_cast<int64_t>(end), 1, [&](int64_t begin, int64_t last) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(last); ++i) {
        if (found[i] == Found::yes) continue;
        found[i] = find_on_disk(records[i]) ? Found::yes : Found::no;
        if (found[i] == Found::yes) read += static_cast<int64_t>(records[i].shape.payload_bytes());
      }
    });
    bytes += read;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (patience == Patience::answers_wait && bytes >= options_.bytes_to_judge &&
        static_cast<double>(bytes) < seconds * static_cast<double>(options_.least_bytes_a_second))
      break;
  }
  writer_->wake();
  return found;
}

void ProjectionStore::keep(model::ContextStates& context) {
  const at::NoGradGuard none;
  const std::vector<int64_t> page_rows = rows_of_pages(context);
  if (is_worth_it(context, page_rows))
    return push(keep_all(context, page_rows, wall_clock(), Patience::answers_wait), Patience::answers_wait);
  model::keep_projections(context, model::cross_attention_blocks(model_), model::head_shape(model_.decoder.config),
                          at::kByte);
}

void ProjectionStore::store(model::ContextStates chunks, int64_t keep_since) {
  const at::NoGradGuard none;
  if (chunks.keys.size() != chunks.pages.size())
    throw base::Error(base::ErrorCode::invalid_argument, "keys and values of chunks without keys cannot be stored");
  push(keep_all(chunks, rows_of_pages(chunks), keep_since, Patience::nobody_waits), Patience::nobody_waits);
}

// Those that the disk has not, to be written.
std::vector<PendingRecord> ProjectionStore::keep_all(model::ContextStates& context, std::span<const int64_t> page_rows,
                                                     int64_t keep_since, Patience patience) {
  open();
  std::vector<PendingRecord> records = records_of(context, page_rows, keep_since);
  const std::vector<Found> found = find(records, patience);
  std::vector<bool> are_there;
  std::vector<int64_t> missing_rows;
  for (size_t i = 0; i < records.size(); ++i) {
    are_there.push_back(found[i] == Found::yes);
    if (!are_there.back()) missing_rows.push_back(page_rows[i]);
  }
  {
    const std::scoped_lock lock(mutex_);
    counters_.made += static_cast<int64_t>(missing_rows.size());
    counters_.read += static_cast<int64_t>(records.size() - missing_rows.size());
  }
  const std::vector<at::Tensor> made = model::empty_page_projections(model_, missing_rows);
  std::vector<at::Tensor> memory;
  size_t next = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    if (!are_there[i]) records[i].packed = made[next++];
    memory.push_back(records[i].packed);
  }
  model::keep_projections_in(memory, are_there, model_, context);
  std::vector<PendingRecord> missing;
  for (size_t i = 0; i < records.size(); ++i)
    if (found[i] == Found::no) missing.push_back(std::move(records[i]));
  return missing;
}

// Where too much waits, an answer lets go of what has waited longest.
void ProjectionStore::push(std::vector<PendingRecord> records, Patience patience) {
  if (records.empty()) return;
  {
    const std::scoped_lock lock(mutex_);
    pushed_ += static_cast<int64_t>(records.size());
  }
  if (patience == Patience::nobody_waits) return writer_->push(std::move(records));
  const int64_t dropped = writer_->push_in_place_of_oldest(std::move(records), options_.most_waiting_bytes);
  if (dropped == 0) return;
  base::detail(options_.folder.string() + ": the disk is slow; keys and values of " + std::to_string(dropped) +
               " chunks that waited for it are not kept");
  {
    const std::scoped_lock lock(mutex_);
    pushed_ -= dropped;
    counters_.dropped += dropped;
  }
  written_changed_.notify_all();
}

ProjectionCounters ProjectionStore::counters() const {
  const std::scoped_lock lock(mutex_);
  return counters_;
}

void ProjectionStore::write(const std::vector<PendingRecord>& records) {
  give_way();
  if (records.empty()) return disk_->flush();  // times of use, for which no answer waits
  bool kept = false;
  try {
    std::vector<DiskTier::Item> items;
    items.reserve(records.size());
    for (const PendingRecord& record : records)
      items.push_back({record.key, record.shape, bytes_of(record.packed), ""});
    kept = !base::interrupted() && disk_->write(items, records.front().keep_since);
  } catch (const std::exception& error) {  // no memory, say: they are made again
    base::detail(options_.folder.string() + ": " + error.what());
  }
  {
    const std::scoped_lock lock(mutex_);
    written_ += static_cast<int64_t>(records.size());
    if (!kept) counters_.dropped += static_cast<int64_t>(records.size());
  }
  written_changed_.notify_all();
}

bool ProjectionStore::keeps() {
  const std::scoped_lock opened(opening_);
  return disk_ && disk_->keeps();
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
  const std::scoped_lock opened(opening_);
  if (disk_) disk_->flush();
}

}  // namespace cepe::context
