// Where each record stands: a SQLite file beside the segments (WAL), shared by any number of
// processes. Everything in it but the times of use can be made again from the records, and is where it is damaged.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file_layer.h"
#include "context/database.h"
#include "context/segment.h"

namespace cepe::context {

struct CatalogueRecord {
  ChunkKey key{};
  RecordPlace place;
  RecordShape shape;
  int64_t used = 0;    // nanoseconds since 1970
  std::string source;  // the document's name where it is known

  // False for figures that no record has: those of a damaged catalogue are no sizes to allocate.
  bool is_plausible() const;
};

struct SegmentUse {
  std::string name;
  int64_t bytes = 0;  // of the file, as last acknowledged
  int64_t records = 0, live_bytes = 0;
};

struct CatalogueTotals {
  int64_t records = 0, live_bytes = 0, file_bytes = 0;
};

// What tells two states of a SQLite file and its log apart: device, inode, size and time of change of each.
using FileStamp = std::array<int64_t, 10>;
FileStamp stamp_of(const base::Path& file);

// Which file has a name: device and inode; zeros where none has.
using FileIdentity = std::array<uint64_t, 2>;

// All functions throw DatabaseError.
class Catalogue {
 public:
  static constexpr const char* file_name = "catalogue.sqlite";
  static constexpr const char* lock_name = "catalogue.lock";

  Database& database() { return database_; }
  // False where the file was removed or another one has its name; of a copy, where it was written to since.
  bool has_its_name() const;
  // The same, and its log and the memory that connections share are those that others use.
  bool is_current() const;

  bool is_consistent();  // reads all of it

  std::optional<CatalogueRecord> find(const ChunkKey& key);
  // The same by a connection of its own, if there is one: what is committed, on one thread beside whoever uses the rest
  // of this, which may last long.
  bool can_find_beside() const { return beside_ != nullptr; }
  std::optional<CatalogueRecord> find_beside(const ChunkKey& key);
  CatalogueTotals totals();
  std::vector<SegmentUse> segments();
  std::vector<CatalogueRecord> records_of(const std::string& segment);
  // When the last was used of those records, used longest ago, that take so many bytes together; -1: of none.
  int64_t last_use_of_oldest(int64_t bytes);
  int64_t last_use_of(const std::string& segment);  // -1 where it has no records
  int64_t bytes_used_after(const std::string& segment, int64_t time);
  // Visits all records, those of a source together.
  void for_each(const std::function<void(const CatalogueRecord&)>& visitor);

  // To be called within a transaction.
  void add(const CatalogueRecord& record);  // in place of an earlier one of the same key
  void add_if_new(const CatalogueRecord& record);
  void set_size(const std::string& segment, int64_t bytes);
  void touch(const std::map<ChunkKey, int64_t>& used);
  // A record that stands at this place still. False where it does not.
  bool drop(const ChunkKey& key, const RecordPlace& place);
  void move(const ChunkKey& key, const RecordPlace& from, const RecordPlace& to);
  // Drops what was used longest ago, but not since `keep_since`, until so many bytes are dropped. How many records
  // were. Times of use that are still to come are of a clock that was ahead: those go first.
  int64_t drop_oldest(int64_t bytes, int64_t keep_since);
  void remove_segment(const std::string& segment);  // with its records
  void clear();

 private:
  friend std::unique_ptr<Catalogue> open_catalogue(const base::Path&, base::FileLayer&, const char*, bool, bool);
  friend std::unique_ptr<Catalogue> open_catalogue_alone(const base::Path&, base::FileLayer&, const char*);
  friend std::unique_ptr<Catalogue> copy_catalogue(const base::Path&, base::FileLayer&, bool);
  Catalogue(const base::Path& folder, const char* vfs, bool alone, bool synced);
  explicit Catalogue(const base::Path& folder);  // a copy, still empty
  bool is_new();
  void make_tables();
  void check_tables();
  void connect_beside();
  void note_log();
  std::optional<int64_t> find_segment(const std::string& name);
  int64_t segment_id(const std::string& name);  // added where it is new

  base::Path file_;
  Database database_;
  std::unique_ptr<Database> beside_;
  bool system_files_;
  FileIdentity identity_{}, log_{}, shared_{};
  bool shares_log_ = false;  // with whoever opens it
  std::optional<FileStamp> copied_;
};

// Opens the catalogue of a folder, makes it where there is none, and makes it anew from the segments where it is
// damaged (or `damaged` says so and nobody else has mended it yet): one process at a time. Says so (warning) where it
// had to. `folder` holds no link. `synced`: commits wait for the medium. Errors: DatabaseError, io; Interrupted, and
// the next one begins it again.
std::unique_ptr<Catalogue> open_catalogue(const base::Path& folder, base::FileLayer& files, const char* vfs,
                                          bool damaged, bool synced);

// A copy in memory of the catalogue of a folder that cannot be written; to change it changes nothing on the disk.
// SQLite itself reads such a catalogue only where the files beside it are there, or promised that nobody writes. Listed
// anew from the segments where there is none, or a damaged one (`damaged` says so, or it is seen: warning). Errors:
// DatabaseError, io; Interrupted.
std::unique_ptr<Catalogue> copy_catalogue(const base::Path& folder, base::FileLayer& files, bool damaged);

// Opens one that is there to be read where the disk has no room for the file that connections share: nobody else can
// use it meanwhile. Errors: DatabaseError, io.
std::unique_ptr<Catalogue> open_catalogue_alone(const base::Path& folder, base::FileLayer& files, const char* vfs);

// Adds the records of all segments that are whole. How many. Errors: DatabaseError, io; Interrupted.
int64_t take_in_segments(Catalogue& catalogue, const base::Path& folder, base::FileLayer& files);

// Removes the segments, then the catalogue, without asking it. How many whole heads and how many bytes there were.
// Errors: io.
std::pair<int64_t, int64_t> remove_all_records(const base::Path& folder, base::FileLayer& files);

// Nanoseconds since 1970.
int64_t wall_clock();

}  // namespace cepe::context
