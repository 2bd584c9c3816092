// How the disk tier stays within its limit: what was used longest ago is dropped from the catalogue, segments without
// records are removed, and those with many dead bytes are written anew without them.
#include <algorithm>
#include <exception>

#include "base/error.h"
#include "base/memory.h"
#include "context/disk_tier.h"

namespace cepe::context {

using base::Error;

bool DiskTier::fits(int64_t bytes) { return catalogue_->totals().file_bytes + bytes <= options_.max_bytes; }

// Times that nobody has noted yet.
DiskTier::Uses DiskTier::uses() {
  const std::scoped_lock lock(mutex_);
  return touched_;
}

// But not those that came since.
void DiskTier::forget(const Uses& noted) {
  const std::scoped_lock lock(mutex_);
  for (const auto& [key, time] : noted)
    if (const auto use = touched_.find(key); use != touched_.end() && use->second == time) touched_.erase(use);
}

void DiskTier::note_uses() {
  const Uses noted = uses();
  Transaction transaction(catalogue_->database());
  catalogue_->touch(noted);
  transaction.commit();
  forget(noted);
}

// Of records, so that `bytes` more fit, with some air, so as not to do this again at once.
int64_t DiskTier::bytes_to_drop(int64_t bytes) {
  return catalogue_->totals().live_bytes - (options_.max_bytes - options_.max_bytes / 16 - bytes);
}

void DiskTier::reclaim(int64_t bytes, int64_t keep_since) {
  note_uses();
  look_at_files();
  remove_orphans();
  remove_dead_segments();
  if (fits(bytes)) return;
  if (const int64_t excess = bytes_to_drop(bytes); excess > 0) {
    Transaction transaction(catalogue_->database());
    const int64_t dropped = catalogue_->drop_oldest(excess, keep_since);
    transaction.commit();
    collected_.dropped_records += dropped;
  }
  remove_dead_segments();
  while (!fits(bytes) && compact_deadest(1)) {
  }
}

// The sizes of the files as they are: a catalogue may be wrong in a figure.
void DiskTier::look_at_files() {
  Transaction transaction(catalogue_->database());
  int64_t dropped = 0;
  for (const SegmentUse& segment : catalogue_->segments()) {
    const auto file = is_segment_name(segment.name) ? files_.open(folder_ / segment.name) : nullptr;
    if (!file) {
      dropped += segment.records;
      catalogue_->remove_segment(segment.name);
    } else if (file->size() > segment.bytes || !writer_.holds(segment.name)) {
      catalogue_->set_size(segment.name, file->size());
    }
  }
  transaction.commit();
  collected_.dropped_records += dropped;
}

void DiskTier::remove_segment_file(const std::string& name, int64_t bytes) {
  files_.remove(folder_ / name);
  {
    const std::scoped_lock lock(mutex_);
    readers_.erase(name);
  }
  ++collected_.removed_files;
  collected_.freed_bytes += bytes;
}

// False where somebody is appending to it, or it has records after all. The file goes last: killed between the two, we
// leave a file that nobody knows, where the other order would leave records without their bytes.
bool DiskTier::remove_dead_segment(const std::string& name) {
  const auto lock = files_.grow(folder_ / name, false);
  if (!lock) return false;
  {
    Transaction transaction(catalogue_->database());
    // Whoever adds records to it holds the lock until they are acknowledged: what is not there now will not come.
    if (!catalogue_->records_of(name).empty()) return false;
    require_catalogue();
    catalogue_->remove_segment(name);
    transaction.commit();
  }
  remove_segment_file(name, lock->size());
  return true;
}

void DiskTier::remove_dead_segments() {
  for (const SegmentUse& segment : catalogue_->segments()) {
    if (segment.records > 0) continue;
    if (writer_.holds(segment.name)) writer_.close();
    remove_dead_segment(segment.name);
  }
}

std::string room_needed(int64_t bytes) {
  return base::human_bytes(bytes) +
         " must be free on the disk to write what stays anew without what is dropped: make room elsewhere, give a "
         "smaller --cache-size, or remove all with `cepe store clear`";
}

// Segments all of whose records are to be dropped, before the catalogue can be written: where the disk is full there is
// no room for its log. What it says of them goes when it is looked at next. False where there are none; least_bytes:
// then, what stays of the segment of which least does (0: nothing is to be dropped).
bool DiskTier::remove_unwanted_segments(int64_t& least_bytes) {
  const std::scoped_lock lock(writing_);
  bool removed = false;
  writer_.close();
  close_readers();
  try {
    if (!unwritable_.empty()) use(nullptr);  // others may have written since it was copied
    if (!catalogue_) use(open_catalogue_alone(folder_, files_, options_.vfs));
    const int64_t last_unwanted = fits(0) ? -1 : catalogue_->last_use_of_oldest(bytes_to_drop(0));
    for (const SegmentUse& segment : catalogue_->segments()) {
      const int64_t staying = catalogue_->bytes_used_after(segment.name, last_unwanted);
      if (staying > 0 && staying < segment.live_bytes)
        least_bytes = least_bytes == 0 ? staying : std::min(least_bytes, staying);
      const auto held = files_.grow(folder_ / segment.name, false);
      // Whoever adds records to it holds it until they are acknowledged: what is not there now will not come.
      if (!held || catalogue_->last_use_of(segment.name) > last_unwanted) continue;
      remove_segment_file(segment.name, held->size());
      removed = true;
    }
  } catch (const std::exception&) {  // it cannot even be read, or no more be removed
  }
  use(nullptr);
  try_open();
  return removed;
}

bool DiskTier::compact_deadest(int64_t least_percent) {
  std::vector<SegmentUse> segments = catalogue_->segments();
  const auto dead = [](const SegmentUse& segment) { return segment.bytes - segment.live_bytes; };
  std::erase_if(segments, [&](const SegmentUse& segment) {
    return dead(segment) <= 0 || dead(segment) * 100 < segment.bytes * least_percent;
  });
  std::sort(segments.begin(), segments.end(), [&](const auto& a, const auto& b) { return dead(a) > dead(b); });
  return std::any_of(segments.begin(), segments.end(),
                     [&](const SegmentUse& segment) { return compact(segment.name); });
}

// Copies the records of a segment that are whole into another one and removes it. False where somebody holds it.
bool DiskTier::compact(const std::string& name) {
  if (writer_.holds(name)) writer_.close();
  const auto lock = files_.grow(folder_ / name, false);
  const auto segment = files_.open(folder_ / name);
  if (!lock || !segment) return false;
  std::vector<std::pair<CatalogueRecord, RecordPlace>> moved;
  Dropped dropped;
  int64_t moved_bytes = 0;
  const std::vector<CatalogueRecord> records = catalogue_->records_of(name);
  try {
    for (const CatalogueRecord& record : records) {
      const bool plausible = record.is_plausible() && record.place.length <= segment->size();
      std::vector<std::byte> values(plausible ? record.shape.payload_bytes() : 0);
      std::string wrong = "its place in the catalogue is impossible";
      if (plausible) wrong = read_record(*segment, record.place, record.key, record.shape, values);
      if (!wrong.empty()) {
        dropped.add(record, wrong);
        continue;
      }
      moved.emplace_back(record, writer_.append(record.key, record.shape, values, record.source));
      moved_bytes += moved.back().second.length;
    }
    sync();
    Transaction transaction(catalogue_->database());
    require_catalogue();
    for (const auto& [record, place] : moved) catalogue_->move(record.key, record.place, place);
    for (const auto& [changed, size] : writer_.sizes()) catalogue_->set_size(changed, size);
    catalogue_->remove_segment(name);
    transaction.commit();
  } catch (const Error& error) {
    writer_.take_back();
    int64_t staying = 0;
    for (const CatalogueRecord& record : records) staying += record.place.length;
    throw Error(error.code(), std::string(error.what()) + "; of " + name + ", " + room_needed(staying));
  } catch (...) {
    writer_.take_back();
    throw;
  }
  writer_.forget();
  say_dropped(name, dropped);
  collected_.dropped_records += dropped.records;
  remove_segment_file(name, segment->size() - moved_bytes);
  return true;
}

// Files that the catalogue does not know, of processes that were killed before they acknowledged anything.
void DiskTier::remove_orphans() {
  std::vector<std::string> known;
  for (const SegmentUse& segment : catalogue_->segments()) known.push_back(segment.name);
  for (const std::string& name : list_segments(files_, folder_)) {
    if (std::find(known.begin(), known.end(), name) != known.end() || writer_.holds(name)) continue;
    remove_dead_segment(name);
  }
}

}  // namespace cepe::context
