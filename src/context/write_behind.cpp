#include "context/write_behind.h"

#include <algorithm>
#include <iterator>
#include <map>

namespace cepe::context {
namespace {

int64_t size_of(const PendingRecord& record) { return static_cast<int64_t>(record.shape.payload_bytes()); }

}  // namespace

WriteBehind::WriteBehind(int64_t most_bytes, Write write) : most_bytes_(most_bytes), write_(std::move(write)) {}

WriteBehind::~WriteBehind() {
  {
    const std::scoped_lock lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

// With the mutex held.
void WriteBehind::start() {
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  changed_.notify_all();
}

// With the mutex held.
void WriteBehind::add(std::vector<PendingRecord> records) {
  for (PendingRecord& record : records) {
    waiting_bytes_ += size_of(record);
    waiting_.push_back(std::move(record));
  }
  start();
}

void WriteBehind::wake() {
  const std::scoped_lock lock(mutex_);
  woken_ = true;
  start();
}

void WriteBehind::push(std::vector<PendingRecord> records) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return waiting_bytes_ < 4 * most_bytes_; });
  add(std::move(records));
}

// With the mutex held: all of one request.
std::vector<PendingRecord> WriteBehind::take_oldest() {
  const auto end = std::find_if(waiting_.begin(), waiting_.end(), [&](const PendingRecord& record) {
    return record.keep_since != waiting_.front().keep_since;
  });
  std::vector<PendingRecord> taken(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
  waiting_.erase(waiting_.begin(), end);
  for (const PendingRecord& record : taken) waiting_bytes_ -= size_of(record);
  return taken;
}

int64_t WriteBehind::push_in_place_of_oldest(std::vector<PendingRecord> records, int64_t most_waiting) {
  int64_t bytes = 0, dropped = 0;
  for (const PendingRecord& record : records) bytes += size_of(record);
  std::vector<std::vector<PendingRecord>> oldest;  // their memory is given back when the mutex is free
  const std::scoped_lock lock(mutex_);
  while (!waiting_.empty() && waiting_bytes_ + bytes > most_waiting) {
    oldest.push_back(take_oldest());
    dropped += static_cast<int64_t>(oldest.back().size());
  }
  add(std::move(records));
  return dropped;
}

std::vector<at::Tensor> WriteBehind::find(std::span<const ChunkKey> keys) {
  std::map<ChunkKey, at::Tensor> known;
  {
    const std::scoped_lock lock(mutex_);
    for (const auto* records : {&taken_, &waiting_})
      for (const PendingRecord& record : *records) known[record.key] = record.packed;
  }
  std::vector<at::Tensor> found;
  for (const ChunkKey& key : keys) {
    const auto place = known.find(key);
    found.push_back(place == known.end() ? at::Tensor() : place->second);
  }
  return found;
}

void WriteBehind::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return waiting_.empty() && !writing_ && !woken_; });
}

void WriteBehind::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return ended_ || woken_ || !waiting_.empty(); });
    if (waiting_.empty() && ended_) return;
    if (waiting_.empty()) woken_ = false;
    auto end = waiting_.begin();
    for (int64_t bytes = 0; end != waiting_.end() && bytes < most_bytes_; ++end) bytes += size_of(*end);
    taken_.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
    waiting_.erase(waiting_.begin(), end);
    for (const PendingRecord& record : taken_) waiting_bytes_ -= size_of(record);
    writing_ = true;
    lock.unlock();
    write_(taken_);
    lock.lock();
    std::vector<PendingRecord> written = std::exchange(taken_, {});
    lock.unlock();
    written.clear();  // their memory is given back when the mutex is free
    lock.lock();
    writing_ = false;
    changed_.notify_all();
  }
}

}  // namespace cepe::context
