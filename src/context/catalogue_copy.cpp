// Reading the catalogue of a folder that cannot be written, or has no room for what SQLite writes to read. Somebody
// else may be writing it, who sees nothing of us: its files are copied until they did not change meanwhile, and SQLite
// opens the copy.
#include <stdlib.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "context/catalogue.h"

namespace cepe::context {
namespace {

using base::Error;
using base::ErrorCode;
namespace fs = std::filesystem;

constexpr int most_attempts = 20;  // to copy files that somebody writes

// Private to the user, with room for so many bytes, and gone with this.
class PassingFolder {
 public:
  explicit PassingFolder(uintmax_t bytes) {
    std::error_code none;
    for (const base::Path& parent : {fs::temp_directory_path(none), base::Path("/tmp"), base::Path("/dev/shm")}) {
      const fs::space_info space = fs::space(parent, none);
      if (!none && space.available < bytes) continue;
      std::string name = (parent / "cepe-catalogue.XXXXXX").string();
      if (!parent.empty() && ::mkdtemp(name.data())) {
        path_ = name;
        return;
      }
    }
    throw Error(ErrorCode::io,
                "no folder for a passing copy of the catalogue: TMPDIR, /tmp and /dev/shm cannot be "
                "written or are full");
  }
  ~PassingFolder() {
    std::error_code none;
    fs::remove_all(path_, none);
  }
  PassingFolder(const PassingFolder&) = delete;
  PassingFolder& operator=(const PassingFolder&) = delete;
  base::Path operator/(const std::string& name) const { return path_ / name; }

 private:
  base::Path path_;
};

// Of a catalogue with its log.
uintmax_t bytes_of(const base::Path& file) {
  uintmax_t bytes = 0;
  for (const char* ending : {"", "-wal"}) {
    std::error_code gone;
    const uintmax_t size = fs::file_size(file.string() + ending, gone);
    if (!gone) bytes += size;
  }
  return bytes;
}

// False where there is none.
bool copy_file(base::FileLayer& files, const base::Path& from, const base::Path& to) {
  const auto file = files.open(from);
  if (!file) return false;
  std::ofstream copy(to, std::ios::binary | std::ios::trunc);
  std::vector<std::byte> part(size_t{1} << 20);
  for (int64_t place = 0;;) {
    const size_t count = file->read(place, part);
    copy.write(reinterpret_cast<const char*>(part.data()), static_cast<std::streamsize>(count));
    place += static_cast<int64_t>(count);
    if (count < part.size()) break;
  }
  copy.close();
  if (!copy) throw Error(ErrorCode::io, to.string() + ": a passing copy of " + from.string() + " cannot be written");
  return true;
}

// False where there is no catalogue. `stamp`: of what was copied.
bool copy_files(base::FileLayer& files, const base::Path& from, const base::Path& to, FileStamp& stamp) {
  bool there = false;
  for (int attempt = 0; attempt < most_attempts; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    base::throw_if_interrupted();
    stamp = stamp_of(from);
    there = copy_file(files, from, to);
    const base::Path log = to.string() + "-wal";
    if (!copy_file(files, from.string() + "-wal", log)) fs::remove(log);
    if (stamp_of(from) == stamp) break;
  }
  return there;  // what does not fit together is seen as damage, and each record has its checksum
}

}  // namespace

std::unique_ptr<Catalogue> copy_catalogue(const base::Path& folder, base::FileLayer& files, bool damaged) {
  const base::Path file = folder / Catalogue::file_name;
  std::string why = damaged ? "damaged" : "";
  std::unique_ptr<Catalogue> catalogue(new Catalogue(folder));
  try {
    const PassingFolder passing(2 * bytes_of(file));  // the log goes into the tables
    const base::Path copy = passing / Catalogue::file_name;
    if (!damaged && copy_files(files, file, copy, *catalogue->copied_)) {
      Database source(copy, nullptr);
      source.run(
          "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = OFF; PRAGMA journal_mode = DELETE");  // its log goes
                                                                                                       // into it
      catalogue->database_.copy(source);
      if (!catalogue->is_new()) {
        catalogue->check_tables();
        return catalogue;
      }
    }
  } catch (const DatabaseError& error) {
    if (!error.is_damage()) throw Error(ErrorCode::io, "a copy of " + file.string() + ": " + error.what());
    why = error.what();
  }
  const FileStamp stamp = *catalogue->copied_;
  catalogue.reset(new Catalogue(folder));
  catalogue->copied_ = stamp;
  Transaction transaction(catalogue->database());
  catalogue->make_tables();
  const int64_t records = take_in_segments(*catalogue, folder, files);
  transaction.commit();
  if (!why.empty()) {
    base::warn(file.string() + ": " + why + "; its " + std::to_string(records) +
               " records are listed from the segments, each time until somebody who can write there mends it");
  }
  return catalogue;
}

}  // namespace cepe::context
