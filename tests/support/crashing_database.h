// SQLite over CrashingFiles: a layer of files ("VFS") that stops with them and finds afterwards what was synced, and a
// random part of the rest. One connection at a time.
#pragma once

#include <sqlite3.h>

#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "crashing_files.h"

namespace cepe::test {

class CrashingDatabase {
 public:
  CrashingDatabase(CrashingFiles& files, std::string name) : files_(files), name_(std::move(name)) {
    sqlite3_vfs* system = sqlite3_vfs_find(nullptr);
    vfs_ = *system;
    vfs_.szOsFile = sizeof(File);
    vfs_.zName = name_.c_str();
    vfs_.pAppData = this;
    vfs_.pNext = nullptr;
    vfs_.xOpen = open;
    vfs_.xDelete = remove;
    vfs_.xAccess = access;
    vfs_.xFullPathname = full_name;
    sqlite3_vfs_register(&vfs_, 0);
  }
  ~CrashingDatabase() { sqlite3_vfs_unregister(&vfs_); }
  CrashingDatabase(const CrashingDatabase&) = delete;
  CrashingDatabase& operator=(const CrashingDatabase&) = delete;
  const char* name() const { return name_.c_str(); }

 private:
  using Page = std::vector<char>;
  struct File {
    sqlite3_file base;
    CrashingFiles::Anywhere* content;
    CrashingDatabase* database;
    base::Path* path;
    bool names_are_synced;
    bool removed_when_closed;
    std::map<int, Page>* shared;
  };
  static CrashingDatabase& of(sqlite3_vfs* vfs) { return *static_cast<CrashingDatabase*>(vfs->pAppData); }
  static File& of(sqlite3_file* file) { return *reinterpret_cast<File*>(file); }

  // No exception may pass through SQLite.
  template <class Action>
  static int guarded(Action action, int refused) {
    try {
      return action();
    } catch (const Crash&) {
      return refused;
    } catch (const base::Error&) {
      return refused;
    }
  }

  static int open(sqlite3_vfs* vfs, const char* name, sqlite3_file* out, int flags, int* flags_out) {
    File& file = of(out);
    file.base.pMethods = nullptr;
    CrashingDatabase& database = of(vfs);
    const base::Path path = name ? base::Path(name) : base::Path("/temporary-" + std::to_string(++database.temporary_));
    if (!(flags & SQLITE_OPEN_CREATE) && !database.files_.has(path)) return SQLITE_CANTOPEN;
    return guarded(
        [&] {
          const bool is_new = !database.files_.has(path);
          file.content = new CrashingFiles::Anywhere(database.files_, path);
          file.database = &database;
          file.path = new base::Path(path);
          file.shared = new std::map<int, Page>;
          // As on Unix: the names of logs are synced with them, that of the database is not.
          file.names_are_synced = is_new && (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL));
          file.removed_when_closed = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0;
          if (flags_out) *flags_out = flags;
          file.base.pMethods = &methods();
          return SQLITE_OK;
        },
        SQLITE_CANTOPEN);
  }
  static int close(sqlite3_file* file) {
    delete of(file).content;
    delete of(file).path;
    delete of(file).shared;
    return SQLITE_OK;
  }
  static int remove(sqlite3_vfs* vfs, const char* name, int sync) {
    CrashingFiles& files = of(vfs).files_;
    return guarded(
        [&] {
          if (!files.exists(name)) return SQLITE_IOERR_DELETE_NOENT;
          files.remove(name);
          if (sync) files.sync_folder(base::Path(name).parent_path());
          return SQLITE_OK;
        },
        SQLITE_IOERR_DELETE);
  }
  static int access(sqlite3_vfs* vfs, const char* name, int, int* found) {
    *found = of(vfs).files_.has(name);
    return SQLITE_OK;
  }
  static int full_name(sqlite3_vfs*, const char* name, int size, char* out) {
    sqlite3_snprintf(size, out, "%s", name);
    return SQLITE_OK;
  }
  static int read(sqlite3_file* file, void* out, int count, sqlite3_int64 place) {
    return guarded(
        [&] {
          const std::string_view content = of(file).content->content();
          const auto begin = std::min(static_cast<size_t>(place), content.size());
          const std::string_view part = content.substr(begin, static_cast<size_t>(count));
          std::memset(out, 0, static_cast<size_t>(count));
          std::memcpy(out, part.data(), part.size());
          return part.size() == static_cast<size_t>(count) ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
        },
        SQLITE_IOERR_READ);
  }
  static int write(sqlite3_file* file, const void* bytes, int count, sqlite3_int64 place) {
    return guarded(
        [&] {
          of(file).content->write(static_cast<size_t>(place),
                                  {static_cast<const char*>(bytes), static_cast<size_t>(count)});
          return SQLITE_OK;
        },
        SQLITE_IOERR_WRITE);
  }
  static int cut(sqlite3_file* file, sqlite3_int64 size) {
    return guarded(
        [&] {
          of(file).content->cut(static_cast<size_t>(size));
          return SQLITE_OK;
        },
        SQLITE_IOERR_TRUNCATE);
  }
  static int sync(sqlite3_file* file, int) {
    return guarded(
        [&] {
          of(file).content->sync(of(file).names_are_synced);
          of(file).names_are_synced = false;
          return SQLITE_OK;
        },
        SQLITE_IOERR_FSYNC);
  }
  static int size(sqlite3_file* file, sqlite3_int64* size) {
    return guarded(
        [&] {
          *size = static_cast<sqlite3_int64>(of(file).content->content().size());
          return SQLITE_OK;
        },
        SQLITE_IOERR_FSTAT);
  }
  static int nothing(sqlite3_file*, int) { return SQLITE_OK; }
  static int is_reserved(sqlite3_file*, int* reserved) {
    *reserved = 0;
    return SQLITE_OK;
  }
  static int control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
  static int sector(sqlite3_file*) { return 4096; }
  static int characteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }
  static int map_shared(sqlite3_file* file, int page, int bytes, int extend, void volatile** out) {
    std::map<int, Page>& shared = *of(file).shared;
    *out = nullptr;
    if (!extend && !shared.contains(page)) return SQLITE_OK;
    Page& memory = shared[page];
    memory.resize(static_cast<size_t>(bytes));
    *out = memory.data();
    return SQLITE_OK;
  }
  static int lock_shared(sqlite3_file*, int, int, int) { return SQLITE_OK; }
  static void barrier(sqlite3_file*) {}
  static int unmap_shared(sqlite3_file* file, int) {
    of(file).shared->clear();
    return SQLITE_OK;
  }

  static sqlite3_io_methods& methods() {
    static sqlite3_io_methods methods = [] {
      sqlite3_io_methods all{};
      all.iVersion = 2;
      all.xClose = close;
      all.xRead = read;
      all.xWrite = write;
      all.xTruncate = cut;
      all.xSync = sync;
      all.xFileSize = size;
      all.xLock = nothing;
      all.xUnlock = nothing;
      all.xCheckReservedLock = is_reserved;
      all.xFileControl = control;
      all.xSectorSize = sector;
      all.xDeviceCharacteristics = characteristics;
      all.xShmMap = map_shared;
      all.xShmLock = lock_shared;
      all.xShmBarrier = barrier;
      all.xShmUnmap = unmap_shared;
      return all;
    }();
    return methods;
  }

  CrashingFiles& files_;
  std::string name_;
  sqlite3_vfs vfs_{};
  int temporary_ = 0;
};

}  // namespace cepe::test
