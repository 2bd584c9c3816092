#include "context/disk_tier.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"

namespace cepe::context {
namespace {

using base::Error;
using base::ErrorCode;
using Clock = std::chrono::steady_clock;

constexpr int most_attempts = 50;    // to write while somebody clears the folder again and again
constexpr size_t most_readers = 64;  // open segments

}  // namespace

DiskTier::DiskTier(DiskTierOptions options, base::FileLayer& files)
    : options_(std::move(options)), files_(files), writer_(files, options_.folder, options_.segment_limit()) {
  if (options_.max_bytes < 0) {
    throw Error(ErrorCode::invalid_argument,
                "a limit of " + std::to_string(options_.max_bytes) + " bytes for " + options_.folder.string());
  }
  folder_ = options_.folder;
  try_open();
}

DiskTier::~DiskTier() {
  try {
    flush();
  } catch (...) {  // only times of use
  }
}

bool DiskTier::lost_catalogue() const {
  return catalogue_ && !(!unwritable_.empty() && Clock::now() < copy_lasts_) && !catalogue_->is_current();
}

// What the copy says may have been moved or removed since.
void DiskTier::renew_copy() {
  {
    const std::scoped_lock lock(mutex_);
    if (unwritable_.empty()) return;
  }
  const std::scoped_lock lock(writing_);
  guarded([&] {
    if (!catalogue_->is_current()) reopen();
  });
}

// False where the catalogue refuses; damage is mended and the action tried again.
template <class Action>
bool DiskTier::guarded(Action action) {
  for (int attempt = 0; usable(); ++attempt) {
    bool lost = false;  // somebody removed the folder, or made the catalogue anew
    try {
      try {
        lost = !catalogue_ || lost_catalogue();
        if (lost) reopen();
        action();
        return true;
      } catch (const DatabaseError& error) {
        if (error.is_busy()) {
          base::warn(options_.folder.string() + ": another process holds the catalogue; this time it is not used");
          if (!catalogue_) put_off("");
          return false;
        }
        lost = !catalogue_ || lost_catalogue();
        if ((!error.is_damage() && !lost) || attempt > 1) throw;
        base::detail((folder_ / Catalogue::file_name).string() + ": " + error.what());
        reopen();
      }
    } catch (const base::Interrupted&) {  // whoever asked sees it too
      put_off("");
      return false;
    } catch (const std::exception& error) {
      const bool passes = lost && may_pass(error);
      passes ? put_off(error.what()) : refuse(error.what());
      return false;
    }
  }
  return false;
}

// False where that has to be asked after what is being written: the catalogue is a copy, or something is wrong with it.
bool DiskTier::find_beside(const ChunkKey& key, std::optional<CatalogueRecord>& found) try {
  const std::scoped_lock lock(mutex_);
  // Whether its log is current whoever writes will see: what it says of a record, the record itself confirms.
  if (!catalogue_ || !catalogue_->can_find_beside() || !catalogue_->has_its_name()) return false;
  found = catalogue_->find_beside(key);
  return true;
} catch (const DatabaseError&) {
  return false;
}

std::optional<CatalogueRecord> DiskTier::find(const ChunkKey& key) {
  std::optional<CatalogueRecord> found;
  if (find_beside(key, found)) return found;
  const std::scoped_lock lock(writing_);
  guarded([&] { found = catalogue_->find(key); });
  return found;
}

std::shared_ptr<base::FileLayer::Reading> DiskTier::reader(const std::string& segment) {
  const std::scoped_lock lock(mutex_);
  if (const auto known = readers_.find(segment); known != readers_.end()) return known->second;
  if (!is_segment_name(segment)) return nullptr;
  std::shared_ptr<base::FileLayer::Reading> opened;
  try {
    opened = files_.open(folder_ / segment);
  } catch (const Error&) {
    if (readers_.empty()) throw;
    readers_.clear();  // so many files may not be open at once
    opened = files_.open(folder_ / segment);
  }
  if (!opened) return nullptr;
  if (readers_.size() >= most_readers) readers_.clear();
  return readers_[segment] = std::move(opened);
}

void DiskTier::pass_over(const std::string& why) {
  const std::scoped_lock lock(mutex_);
  if (!std::exchange(passed_over_said_, true)) base::warn(why + "; what cannot be read now is passed over");
}

// Reads a record, wherever it is moved meanwhile (`record` follows it); drops it where it is damaged, by what is
// `wrong`.
DiskTier::Look DiskTier::look_at(CatalogueRecord& record, const ReadAt& read, std::string& wrong) {
  while (true) {
    try {
      const auto segment = reader(record.place.segment);
      wrong = segment ? read(*segment, record) : "its segment is gone";
    } catch (const Error& error) {
      pass_over(error.what());
      return Look::unreadable;
    }
    if (wrong.empty()) return Look::sound;
    renew_copy();
    std::optional<CatalogueRecord> again = find(record.key);
    if (!again) return Look::gone;
    if (again->place.segment == record.place.segment && again->place.offset == record.place.offset)
      return drop(record) ? Look::damaged : Look::gone;
    record = *std::move(again);
  }
}

bool DiskTier::read(const ChunkKey& key, const RecordShape& shape, std::span<std::byte> values) {
  return look_up(key, [&](base::FileLayer::Reading& segment, const CatalogueRecord& record) {
    return read_record(segment, record.place, record.key, shape, values);
  });
}

base::FileLayer::Content DiskTier::map(const ChunkKey& key, const RecordShape& shape) {
  base::FileLayer::Content values;
  const bool found = look_up(key, [&](base::FileLayer::Reading& segment, const CatalogueRecord& record) {
    return map_record(segment, record.place, record.key, shape, values);
  });
  return found ? std::move(values) : base::FileLayer::Content{};
}

bool DiskTier::look_up(const ChunkKey& key, const ReadAt& read) {
  std::optional<CatalogueRecord> record = find(key);
  if (!record) return false;
  std::string wrong;
  const Look look = look_at(*record, read, wrong);
  if (look == Look::damaged) drop_with_others(*record, wrong);
  if (look != Look::sound) return false;
  const std::scoped_lock lock(mutex_);
  if (unwritable_.empty()) touched_[key] = wall_clock();
  return true;
}

// A file that lost its end, or is gone, has lost thousands of records: all of them go at once, in one line.
void DiskTier::drop_with_others(const CatalogueRecord& record, const std::string& wrong) {
  const std::string& segment = record.place.segment;
  Dropped dropped;
  dropped.add(record, wrong);
  bool is_first = false;
  {
    const std::scoped_lock lock(writing_);
    dropped.records += drop_behind_end(segment);
    is_first = said_damaged_.insert(segment).second;
  }
  const char* advice = dropped.records == 1 ? "; `cepe store verify` looks at the rest of this file" : "";
  if (is_first || dropped.records > 1) say_dropped(segment, dropped, advice);
}

// Records of a segment that do not end inside it. How many.
int64_t DiskTier::drop_behind_end(const std::string& segment) {
  int64_t count = 0;
  guarded([&] {
    count = 0;
    // What others add is in the file before it is in the catalogue: the size is looked at while nobody adds.
    Transaction transaction(catalogue_->database());
    int64_t size = 0;
    try {
      if (const auto file = is_segment_name(segment) ? files_.open(folder_ / segment) : nullptr) size = file->size();
    } catch (const Error&) {
      return;  // it cannot be looked at now
    }
    for (const CatalogueRecord& record : catalogue_->records_of(segment)) {
      if (record.place.offset <= size - record.place.length) continue;
      count += catalogue_->drop(record.key, record.place);
    }
    transaction.commit();
  });
  return count;
}

void DiskTier::Dropped::add(const CatalogueRecord& record, const std::string& reason) {
  if (records++ > 0) return;
  first = record.place.offset;
  why = reason;
}

void DiskTier::say_dropped(const std::string& segment, const Dropped& dropped, const std::string& advice) {
  if (dropped.records == 0) return;
  const std::string what = (options_.folder / segment).string() + ", byte " + std::to_string(dropped.first) + ": " +
                           dropped.why + (only_reads() ? "; " : "; dropped, ");
  base::warn(what +
             (dropped.records == 1 ? "its text is encoded again"
                                   : "with " + std::to_string(dropped.records - 1) +
                                         " more chunks of this file; their text is encoded again") +
             advice);
}

// False where it is not there any more: somebody has cleared the folder.
bool DiskTier::drop(const CatalogueRecord& record) {
  const std::scoped_lock lock(writing_);
  {
    const std::scoped_lock read(mutex_);
    readers_.erase(record.place.segment);
  }
  bool was_there = false;
  const bool asked = guarded([&] {
    Transaction transaction(catalogue_->database());
    was_there |= catalogue_->drop(record.key, record.place);
    transaction.commit();
    // The record may be whole and the catalogue wrong about it.
    if (was_there && std::has_single_bit(++dropped_) && !catalogue_->is_consistent()) {
      throw DatabaseError(SQLITE_CORRUPT, "tables and indices contradict each other");
    }
  });
  return was_there || !asked;
}

bool DiskTier::keeps() {
  const std::scoped_lock lock(mutex_);
  return writable_ && unwritable_.empty();
}

bool DiskTier::only_reads() {
  const std::scoped_lock lock(mutex_);
  return catalogue_ && !unwritable_.empty();
}

int64_t DiskTier::left_out() {
  const std::scoped_lock lock(mutex_);
  return left_out_;
}

void DiskTier::flush() {
  close_readers();
  if (uses().empty()) return;
  const std::scoped_lock lock(writing_);
  const Uses noted_here = uses();
  if (lost_catalogue()) return forget(noted_here);  // nothing is made anew for times of use
  if (!writable_ || !unwritable_.empty()) return;
  bool noted = true;
  guarded([&] {
    // A crash may lose these, so nobody waits: neither for the medium nor for others who write.
    hurry(true);
    try {
      note_uses();
    } catch (const DatabaseError& error) {
      if (!error.is_busy()) throw;
      noted = false;  // the next time
    }
  });
  guarded([&] { hurry(false); });
  if (noted) forget(noted_here);
}

bool DiskTier::write(std::span<const Item> items, int64_t keep_since) {
  if (items.empty()) return true;
  const std::scoped_lock lock(writing_);
  if (!unwritable_.empty()) {
    refuse(unwritable_);
    return false;
  }
  for (int attempt = 0; attempt < most_attempts && writable_ && usable(); ++attempt) {
    bool whole = false;
    Outcome outcome = Outcome::again;
    if (!guarded([&] { outcome = try_write(items, keep_since, whole); })) break;
    if (outcome != Outcome::again) return outcome == Outcome::done && whole;
  }
  if (!writable_ || !(catalogue_ || looks_again_)) return false;
  const std::scoped_lock read(mutex_);
  left_out_ += static_cast<int64_t>(items.size());
  return false;
}

DiskTier::Outcome DiskTier::try_write(std::span<const Item> items, int64_t keep_since, bool& whole) {
  const size_t count = count_that_fit(items, keep_since);
  whole = count == items.size();
  if (count == 0) return Outcome::refused;
  try {
    return append(items.first(count));
  } catch (const DatabaseError&) {
    writer_.take_back();
    throw;
  } catch (const Error& error) {
    writer_.take_back();
    if (error.code() == ErrorCode::not_found) return Outcome::again;  // the folder is gone
    throw;
  }
}

void DiskTier::sync() {
  if (options_.synced) writer_.sync();
}

void DiskTier::hurry(bool hurries) {
  Database& database = catalogue_->database();
  database.wait_at_most(hurries ? std::chrono::milliseconds(200) : Database::usual_wait);
  if (options_.synced) database.run(hurries ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL");
}

// First the bytes, then the catalogue.
DiskTier::Outcome DiskTier::append(std::span<const Item> items) {
  offer_segments();
  std::vector<CatalogueRecord> records;
  for (const Item& item : items) {
    const std::string_view source = item.source.substr(0, longest_source);
    const RecordPlace place = writer_.append(item.key, item.shape, item.values, source);
    records.push_back({item.key, place, item.shape, 0, std::string(source)});
  }
  sync();
  Transaction transaction(catalogue_->database());
  if (!writer_.all_there() || !catalogue_->is_current()) {  // cleared, or made anew, since we looked
    writer_.close();
    return Outcome::again;
  }
  int64_t now = wall_clock();
  for (CatalogueRecord& record : records) {
    record.used = now++;
    catalogue_->add(record);
  }
  for (const auto& [segment, size] : writer_.sizes()) catalogue_->set_size(segment, size);
  const Uses noted = uses();
  catalogue_->touch(noted);
  transaction.commit();
  forget(noted);
  writer_.forget();
  return Outcome::done;
}

void DiskTier::offer_segments() {
  if (writer_.is_open()) return;
  if (!std::exchange(looked_for_orphans_, true)) remove_orphans();
  std::vector<std::string> names;
  for (const SegmentUse& segment : catalogue_->segments()) {
    if (segment.bytes < options_.segment_limit()) names.push_back(segment.name);
  }
  writer_.offer(std::move(names));
}

size_t DiskTier::count_that_fit(std::span<const Item> items, int64_t keep_since) {
  int64_t bytes = 0;
  for (const Item& item : items) bytes += static_cast<int64_t>(record_bytes(item.shape, item.source));
  if (fits(bytes)) return items.size();
  if (full_since_ != keep_since) {
    reclaim(bytes, keep_since);
    if (fits(bytes)) return items.size();
    full_since_ = keep_since;
  }
  int64_t room = options_.max_bytes - catalogue_->totals().file_bytes;
  size_t count = 0;
  for (; count < items.size(); ++count) {
    room -= static_cast<int64_t>(record_bytes(items[count].shape, items[count].source));
    if (room < 0) break;
  }
  if (!std::exchange(full_said_, true)) {
    base::notice(options_.folder.string() + ": this text alone fills the " + base::human_bytes(options_.max_bytes) +
                 " kept there; the rest of it is encoded anew each time");
  }
  return count;
}

}  // namespace cepe::context
