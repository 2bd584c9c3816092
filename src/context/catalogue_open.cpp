// Opening the catalogue, and making it from the segments where there is none or a damaged one.
#include <chrono>
#include <thread>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "context/catalogue.h"

namespace cepe::context {
namespace {

using Lock = std::unique_ptr<base::FileLayer::Growing>;

// Held by whoever opens a catalogue or makes one: nobody may find half of the three files of SQLite.
Lock wait_for_lock(const base::Path& folder, base::FileLayer& files) {
  const base::Path file = folder / Catalogue::lock_name;
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  while (std::chrono::steady_clock::now() < give_up) {
    if (Lock lock = files.grow(file, true)) return lock;
    if (Lock lock = files.grow(file, false)) return lock;
    base::throw_if_interrupted();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  throw base::Error(base::ErrorCode::io, file.string() + ": held by another process for two minutes");
}

void remove_catalogue(const base::Path& folder, base::FileLayer& files) {
  // The log before the tables: a new file must never find the log of an old one.
  for (const char* ending : {"-wal", "-shm", "-journal", ""}) {
    const base::Path file = folder / (std::string(Catalogue::file_name) + ending);
    if (files.exists(file)) files.remove(file);
  }
  files.sync_folder(folder);
}

}  // namespace

int64_t take_in_segments(Catalogue& catalogue, const base::Path& folder, base::FileLayer& files) {
  int64_t records = 0;
  int64_t now = wall_clock();
  std::vector<std::byte> values;
  const std::vector<std::string> names = list_segments(files, folder);
  base::Progress progress("listing encoded chunks", static_cast<int64_t>(names.size()), "files");
  for (const std::string& name : names) {
    progress.advance(1);
    const auto segment = files.open(folder / name);
    if (!segment) continue;
    catalogue.set_size(name, segment->size());
    scan_segment(*segment, [&](const RecordInfo& info, int64_t offset) {
      base::throw_if_interrupted();
      const RecordPlace place{name, offset, static_cast<int64_t>(info.record_bytes())};
      values.resize(info.shape.payload_bytes());
      std::string source;
      if (!read_record(*segment, place, info.key, info.shape, values, source).empty()) return false;
      catalogue.add_if_new({info.key, place, info.shape, now++, source});
      ++records;
      return true;
    });
  }
  return records;
}

std::pair<int64_t, int64_t> remove_all_records(const base::Path& folder, base::FileLayer& files) {
  const Lock lock = wait_for_lock(folder, files);
  std::pair<int64_t, int64_t> removed;
  for (const std::string& name : list_segments(files, folder)) {
    try {
      if (const auto segment = files.open(folder / name)) {
        scan_segment(*segment, [&](const RecordInfo& info, int64_t) {
          ++removed.first;
          removed.second += static_cast<int64_t>(info.record_bytes());
          return true;
        });
      }
    } catch (const base::Error&) {  // it only would have been counted
    }
    files.remove(folder / name);
  }
  remove_catalogue(folder, files);
  return removed;
}

std::unique_ptr<Catalogue> open_catalogue_alone(const base::Path& folder, base::FileLayer& files, const char* vfs) {
  const Lock lock = wait_for_lock(folder, files);
  std::unique_ptr<Catalogue> catalogue(new Catalogue(folder, vfs, true, true));
  catalogue->check_tables();
  return catalogue;
}

std::unique_ptr<Catalogue> open_catalogue(const base::Path& folder, base::FileLayer& files, const char* vfs,
                                          bool damaged, bool synced) {
  const Lock lock = wait_for_lock(folder, files);
  std::string why = damaged ? "damaged" : "";
  for (int attempt = 0;; ++attempt) {
    if (!why.empty()) remove_catalogue(folder, files);
    try {
      std::unique_ptr<Catalogue> catalogue(new Catalogue(folder, vfs, false, synced));
      if (catalogue->is_new()) {
        Transaction transaction(catalogue->database());
        catalogue->make_tables();
        const int64_t records = take_in_segments(*catalogue, folder, files);
        transaction.commit();
        files.sync_folder(folder);  // the name of the catalogue
        if (!why.empty()) {
          base::warn((folder / Catalogue::file_name).string() + ": " + why + "; made anew from the segments, with " +
                     std::to_string(records) + " records");
        }
      }
      catalogue->check_tables();
      catalogue->note_log();
      catalogue->connect_beside();
      return catalogue;
    } catch (const DatabaseError& error) {
      if (!error.is_damage() || attempt > 0) throw;
      why = error.what();
    }
  }
}

}  // namespace cepe::context
