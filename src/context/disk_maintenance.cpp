// What `cepe store` does with the disk tier. Unlike the rest of it, an error here is an error.
#include <algorithm>
#include <limits>
#include <map>
#include <tuple>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "context/disk_tier.h"

namespace cepe::context {

using base::Error;
using base::ErrorCode;

template <class Action>
void DiskTier::strictly(Action action) {
  const std::scoped_lock lock(writing_);
  if (!usable()) throw Error(ErrorCode::io, options_.folder.string() + ": cannot be used as a store of encoded text");
  bool damaged = false;
  for (int attempt = 0;; ++attempt) {
    try {
      if (damaged || !catalogue_ || lost_catalogue()) reopen();
      return action();
    } catch (const DatabaseError& error) {
      const std::string message = (folder_ / Catalogue::file_name).string() + ": " + explain(error);
      damaged = error.is_damage();
      if (!damaged && (!lost_catalogue() || attempt > 1)) throw Error(ErrorCode::io, message);
      if (attempt > 1) throw Error(ErrorCode::corrupt, message);
    }
  }
}

void DiskTier::require_writable() const {
  if (unwritable_.empty()) return;
  throw Error(ErrorCode::io, options_.folder.string() + ": cannot be written (" + unwritable_ +
                                 "): nothing is removed" +
                                 (disk_fails_ ? "" : "; its owner can, from where it is not read-only"));
}

DiskUsage DiskTier::usage() {
  DiskUsage usage;
  strictly([&] {
    usage = {};
    catalogue_->for_each([&](const CatalogueRecord& record) {
      ++usage.chunks;
      usage.bytes += record.place.length;
      if (usage.documents.empty() || usage.documents.back().source != record.source) {
        usage.documents.push_back({record.source, 0, 0, 0});
      }
      StoredDocument& document = usage.documents.back();
      ++document.chunks;
      document.bytes += record.place.length;
      document.used = std::max(document.used, record.used);
    });
    usage.segments = catalogue_->segments();
    for (const SegmentUse& segment : usage.segments) usage.file_bytes += segment.bytes;
  });
  return usage;
}

DiskTier::Verified DiskTier::verify() {
  std::vector<CatalogueRecord> records;
  strictly([&] {
    records.clear();
    catalogue_->for_each([&](const CatalogueRecord& record) { records.push_back(record); });
  });
  std::sort(records.begin(), records.end(), [](const CatalogueRecord& a, const CatalogueRecord& b) {
    return std::tie(a.place.segment, a.place.offset) < std::tie(b.place.segment, b.place.offset);
  });
  Verified verified;
  std::map<std::string, Dropped> dropped;  // a file may lose thousands: one line for each
  base::Progress progress("reading encoded chunks", static_cast<int64_t>(records.size()), "chunks");
  std::vector<std::byte> values;
  std::string wrong;
  for (CatalogueRecord& record : records) {
    if (base::interrupted()) break;
    const auto read = [&](base::FileLayer::Reading& segment, const CatalogueRecord& found) -> std::string {
      if (!found.is_plausible()) return "its place in the catalogue is impossible";
      values.resize(found.shape.payload_bytes());
      return read_record(segment, found.place, found.key, found.shape, values);
    };
    const Look look = look_at(record, read, wrong);
    if (look == Look::damaged) dropped[record.place.segment].add(record, wrong);
    if (look != Look::gone) {
      ++verified.records;
      verified.bytes += record.place.length;
    }
    verified.damaged += look == Look::damaged;
    verified.unreadable += look == Look::unreadable;
    progress.advance(1);
  }
  for (const auto& [segment, what] : dropped) say_dropped(segment, what);
  base::throw_if_interrupted();
  return verified;
}

DiskTier::Collected DiskTier::collect() {
  {
    const std::scoped_lock lock(writing_);
    const auto [files, bytes] = options_.vfs ? std::pair<int64_t, int64_t>{} : remove_earlier_records(folder_);
    collected_ = {0, files, bytes};
  }
  try {
    collect_once();
  } catch (const Error&) {
    if (!disk_fails_) throw;
    int64_t least_bytes = 0;
    if (!remove_unwanted_segments(least_bytes)) {
      if (least_bytes == 0) throw;
      throw Error(ErrorCode::io, options_.folder.string() +
                                     ": the disk is full, and each file holds chunks that stay; of one, " +
                                     room_needed(least_bytes));
    }
    collect_once();
  }
  const std::scoped_lock lock(writing_);
  return collected_;
}

void DiskTier::collect_once() {
  strictly([&] {
    require_writable();
    writer_.close();
    reclaim(0, std::numeric_limits<int64_t>::max());
    while (compact_deadest(50)) base::throw_if_interrupted();
    catalogue_->database().run("PRAGMA wal_checkpoint(TRUNCATE)");
  });
}

DiskUsage DiskTier::clear() {
  DiskUsage before;
  try {
    before = usage();
    strictly([&] {
      require_writable();
      writer_.close();
      forget(uses());
      // Whoever appends to a segment sees that it is gone before it acknowledges anything in it.
      Transaction transaction(catalogue_->database());
      catalogue_->clear();
      for (const std::string& name : list_segments(files_, folder_)) files_.remove(folder_ / name);
      transaction.commit();
      close_readers();
    });
  } catch (const Error&) {
    if (!disk_fails_) throw;
    clear_files(before);
  }
  const std::scoped_lock lock(writing_);
  if (!options_.vfs) remove_earlier_records(folder_);
  return before;
}

// A disk without a free byte has no room for the catalogue's log either.
void DiskTier::clear_files(DiskUsage& before) {
  const std::scoped_lock lock(writing_);
  writer_.close();
  forget(uses());
  use(nullptr);
  const auto [chunks, bytes] = remove_all_records(folder_, files_);
  if (before.chunks == 0) {
    before.chunks = chunks;
    before.bytes = bytes;
  }
  close_readers();
  try_open();
}

}  // namespace cepe::context
