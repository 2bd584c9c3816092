// Which names in a folder of records are records, and walking them. Nothing else in it is ever touched.
#pragma once

#include <string>
#include <vector>

#include "base/files.h"
#include "context/chunk.h"

namespace cepe::context {

// An open file; closed at the end.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&&) = delete;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  explicit operator bool() const { return value_ >= 0; }
  int get() const { return value_; }

 private:
  int value_;
};

struct RecordName {
  explicit RecordName(const ChunkKey& key);
  std::string subfolder;  // first two digits of the key
  std::string file;       // <key in 64 digits>.states; while being written with "." and temporary_digits digits more
};
constexpr size_t temporary_digits = 16;

// A subfolder of records, not through a link. Closed, with errno, where it cannot be opened.
Descriptor open_subfolder(const base::Path& folder, const std::string& name);

struct FoundRecord {
  std::string subfolder, file;
  int64_t bytes = 0;
  int64_t used = 0;  // nanoseconds since 1970
  bool temporary = false;
};
// Regular files under the names of records, finished or not; none where there is no folder. Errors: io.
std::vector<FoundRecord> list_records(const base::Path& folder);
// False where it is gone already or cannot be removed.
bool remove_record(const base::Path& folder, const FoundRecord& record);

struct StoredRecords {
  int64_t records = 0, bytes = 0;
};
// All records of a folder; none where there is no folder. Errors: io.
StoredRecords stored_records(const base::Path& folder);
// Removes records and unfinished ones, and nothing else. Returns the records removed. Errors: io.
StoredRecords remove_records(const base::Path& folder);

}  // namespace cepe::context
