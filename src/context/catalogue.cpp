#include "context/catalogue.h"

#include <sys/stat.h>

#include <algorithm>
#include <ctime>

namespace cepe::context {
namespace {

constexpr int64_t schema_version = 2;

std::span<const std::byte> bytes_of_key(const ChunkKey& key) { return key; }

CatalogueRecord record_in(const Database::Statement& row) {
  CatalogueRecord record;
  const std::span<const std::byte> key = row.bytes(0);
  if (key.size() != record.key.size()) throw DatabaseError(SQLITE_CORRUPT, "a key of another length");
  std::copy(key.begin(), key.end(), record.key.begin());
  record.place = {row.text(1), row.integer(2), row.integer(3)};
  const int64_t type = row.integer(4);
  if (!RecordShape::is_type(type)) throw DatabaseError(SQLITE_CORRUPT, "a type that there is not");
  record.shape = {static_cast<RecordShape::Type>(type), row.integer(5), row.integer(6)};
  record.used = row.integer(7);
  record.source = row.text(8);
  return record;
}

constexpr const char* find_text =
    "SELECT key, name, offset, length, type, rows, width, used, source FROM records JOIN segments ON segment = id "
    "WHERE key = ?";
std::optional<CatalogueRecord> find_in(Database& database, const ChunkKey& key) {
  Database::Statement& row = database.statement(find_text).with(bytes_of_key(key));
  if (!row.step()) return std::nullopt;
  CatalogueRecord record = record_in(row);
  row.done();
  return record;
}

constexpr const char* all_text =
    "SELECT key, name, offset, length, type, rows, width, used, source FROM records JOIN segments ON segment = id "
    "ORDER BY source, name, offset";
// A segment is looked up by its name in the table itself (NOT INDEXED). There are few, and a damaged index could give
// another's number: what is added would be acknowledged and never found.
constexpr const char* of_segment_text =
    "SELECT key, name, offset, length, type, rows, width, used, source FROM records JOIN segments ON segment = id "
    "WHERE segment = (SELECT id FROM segments NOT INDEXED WHERE name = ?) ORDER BY offset";

FileIdentity identity_of(const base::Path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) return {};
  return {status.st_dev, status.st_ino};
}

}  // namespace

bool CatalogueRecord::is_plausible() const {
  constexpr int64_t most_bytes = int64_t{1} << 32;
  return shape.rows > 0 && shape.width > 0 && place.length > 0 && place.length <= most_bytes &&
         shape.rows < place.length && shape.width < place.length &&
         static_cast<int64_t>(shape.payload_bytes()) < place.length;
}

int64_t wall_clock() {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

FileStamp stamp_of(const base::Path& file) {
  FileStamp stamp{};
  auto place = stamp.begin();
  for (const char* ending : {"", "-wal"}) {
    struct stat status {};
    const bool there = ::lstat((file.string() + ending).c_str(), &status) == 0;
    if (!there) status = {};
    for (const auto value : {static_cast<int64_t>(status.st_dev), static_cast<int64_t>(status.st_ino),
                             static_cast<int64_t>(status.st_size), static_cast<int64_t>(status.st_mtim.tv_sec),
                             static_cast<int64_t>(status.st_mtim.tv_nsec)})
      *place++ = value;
  }
  return stamp;
}

Catalogue::Catalogue(const base::Path& folder, const char* vfs, bool alone, bool synced)
    : file_(folder / file_name), database_(file_, vfs), system_files_(vfs == nullptr) {
  if (system_files_) identity_ = identity_of(file_);
  if (alone) database_.run("PRAGMA locking_mode = EXCLUSIVE");
  database_.run(synced ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL");
  database_.run("PRAGMA cell_size_check = ON");
  Database::Statement& mode = database_.statement("PRAGMA journal_mode = WAL").with();
  shares_log_ = mode.step() && mode.text(0) == "wal" && system_files_ && !alone;
  mode.done();
}

Catalogue::Catalogue(const base::Path& folder)
    : file_(folder / file_name), system_files_(true), copied_(stamp_of(file_)) {}

bool Catalogue::has_its_name() const {
  if (copied_) return stamp_of(file_) == *copied_;
  return !system_files_ || (identity_ != FileIdentity{} && identity_of(file_) == identity_);
}

bool Catalogue::is_current() const {
  if (!has_its_name()) return false;
  return !shares_log_ || (log_ != FileIdentity{} && identity_of(file_.string() + "-wal") == log_ &&
                          shared_ != FileIdentity{} && identity_of(file_.string() + "-shm") == shared_);
}

// Once it was read: from then on they stay as long as it is open.
void Catalogue::note_log() {
  log_ = identity_of(file_.string() + "-wal");
  shared_ = identity_of(file_.string() + "-shm");
}

bool Catalogue::is_new() {
  Database::Statement& row = database_.statement("PRAGMA user_version").with();
  row.step();
  const int64_t version = row.integer(0);
  row.done();
  if (version != 0 && version != schema_version) {
    throw DatabaseError(SQLITE_CORRUPT, "tables of version " + std::to_string(version));
  }
  return version == 0;
}

void Catalogue::make_tables() {
  database_.run(
      "CREATE TABLE segments (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL);"
      "CREATE TABLE records (key BLOB PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL, "
      "length INTEGER NOT NULL, type INTEGER NOT NULL, rows INTEGER NOT NULL, width INTEGER NOT NULL, "
      "used INTEGER NOT NULL, source TEXT NOT NULL) WITHOUT ROWID;"
      "CREATE INDEX records_by_use ON records (used, length);"
      "CREATE INDEX records_by_segment ON records (segment, length);");
  database_.run(("PRAGMA user_version = " + std::to_string(schema_version)).c_str());
}

// What a damaged table of contents would make of our statements is seen here.
void Catalogue::check_tables() {
  for (const char* text : {find_text, all_text, of_segment_text}) database_.statement(text);
  totals();
  segments();
}

bool Catalogue::is_consistent() {
  Database::Statement& row = database_.statement("PRAGMA integrity_check(1)").with();
  const bool consistent = row.step() && row.text(0) == "ok";
  row.done();
  return consistent;
}

std::optional<CatalogueRecord> Catalogue::find(const ChunkKey& key) { return find_in(database_, key); }

std::optional<CatalogueRecord> Catalogue::find_beside(const ChunkKey& key) { return find_in(*beside_, key); }

// None where the process may open no more files.
void Catalogue::connect_beside() {
  if (!system_files_) return;
  try {
    beside_ = std::make_unique<Database>(file_, nullptr);
    beside_->run("PRAGMA query_only = ON; PRAGMA cell_size_check = ON");
    beside_->statement(find_text);
    beside_->wait_at_most({});  // whoever finds it busy asks the other connection
  } catch (const DatabaseError&) {
    beside_.reset();
  }
}

CatalogueTotals Catalogue::totals() {
  CatalogueTotals totals;
  Database::Statement& live = database_.statement("SELECT COUNT(*), COALESCE(SUM(length), 0) FROM records").with();
  live.step();
  totals.records = live.integer(0);
  totals.live_bytes = live.integer(1);
  live.done();
  Database::Statement& files = database_.statement("SELECT COALESCE(SUM(bytes), 0) FROM segments").with();
  files.step();
  totals.file_bytes = files.integer(0);
  files.done();
  return totals;
}

std::vector<SegmentUse> Catalogue::segments() {
  Database::Statement& row = database_
                                 .statement(
                                     "SELECT name, bytes, COUNT(length), COALESCE(SUM(length), 0) FROM segments "
                                     "LEFT JOIN records ON segment = id GROUP BY id ORDER BY id")
                                 .with();
  std::vector<SegmentUse> found;
  while (row.step()) found.push_back({row.text(0), row.integer(1), row.integer(2), row.integer(3)});
  return found;
}

std::vector<CatalogueRecord> Catalogue::records_of(const std::string& segment) {
  Database::Statement& row = database_.statement(of_segment_text).with(std::string_view(segment));
  std::vector<CatalogueRecord> found;
  while (row.step()) found.push_back(record_in(row));
  return found;
}

int64_t Catalogue::last_use_of_oldest(int64_t bytes) {
  Database::Statement& row = database_.statement("SELECT used, length FROM records ORDER BY used").with();
  int64_t last = -1;
  for (int64_t sum = 0; sum < bytes && row.step(); sum += std::max<int64_t>(row.integer(1), 0)) last = row.integer(0);
  row.done();
  return last;
}

int64_t Catalogue::last_use_of(const std::string& segment) {
  Database::Statement& row = database_
                                 .statement(
                                     "SELECT COALESCE(MAX(used), -1) FROM records WHERE segment = "
                                     "(SELECT id FROM segments NOT INDEXED WHERE name = ?)")
                                 .with(std::string_view(segment));
  row.step();
  const int64_t last = row.integer(0);
  row.done();
  return last;
}

int64_t Catalogue::bytes_used_after(const std::string& segment, int64_t time) {
  Database::Statement& row = database_
                                 .statement(
                                     "SELECT COALESCE(SUM(length), 0) FROM records WHERE used > ? AND segment = "
                                     "(SELECT id FROM segments NOT INDEXED WHERE name = ?)")
                                 .with(time, std::string_view(segment));
  row.step();
  const int64_t bytes = row.integer(0);
  row.done();
  return bytes;
}

void Catalogue::for_each(const std::function<void(const CatalogueRecord&)>& visitor) {
  std::vector<CatalogueRecord> all;  // read before visiting, which may change them
  Database::Statement& row = database_.statement(all_text).with();
  while (row.step()) all.push_back(record_in(row));
  for (const CatalogueRecord& record : all) visitor(record);
}

std::optional<int64_t> Catalogue::find_segment(const std::string& name) {
  Database::Statement& row =
      database_.statement("SELECT id FROM segments NOT INDEXED WHERE name = ?").with(std::string_view(name));
  if (!row.step()) return std::nullopt;
  const int64_t id = row.integer(0);
  row.done();
  return id;
}

int64_t Catalogue::segment_id(const std::string& name) {
  if (const std::optional<int64_t> known = find_segment(name)) return *known;
  database_.statement("INSERT OR IGNORE INTO segments (name, bytes) VALUES (?, 0)").with(std::string_view(name)).run();
  const std::optional<int64_t> added = find_segment(name);
  if (!added) throw DatabaseError(SQLITE_CORRUPT, "a segment that was added is not there");
  return *added;
}

void Catalogue::add(const CatalogueRecord& record) {
  database_
      .statement(
          "INSERT OR REPLACE INTO records (key, segment, offset, length, type, rows, width, used, source) "
          "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .with(bytes_of_key(record.key), segment_id(record.place.segment), record.place.offset, record.place.length,
            static_cast<int64_t>(record.shape.type), record.shape.rows, record.shape.width, record.used,
            std::string_view(record.source))
      .run();
}

void Catalogue::add_if_new(const CatalogueRecord& record) {
  if (!find(record.key)) add(record);
}

void Catalogue::set_size(const std::string& segment, int64_t bytes) {
  database_.statement("UPDATE segments SET bytes = ? WHERE id = ?").with(bytes, segment_id(segment)).run();
}

void Catalogue::touch(const std::map<ChunkKey, int64_t>& used) {
  const int64_t now = wall_clock();
  for (const auto& [key, time] : used) {
    database_.statement("UPDATE records SET used = MAX(IIF(used > ?, 0, used), ?) WHERE key = ?")
        .with(now, time, bytes_of_key(key))
        .run();
  }
}

bool Catalogue::drop(const ChunkKey& key, const RecordPlace& place) {
  database_
      .statement(
          "DELETE FROM records WHERE key = ? AND offset = ? AND segment = "
          "(SELECT id FROM segments NOT INDEXED WHERE name = ?)")
      .with(bytes_of_key(key), place.offset, std::string_view(place.segment))
      .run();
  return database_.changes() > 0;
}

void Catalogue::move(const ChunkKey& key, const RecordPlace& from, const RecordPlace& to) {
  database_
      .statement(
          "UPDATE records SET segment = ?, offset = ?, length = ? WHERE key = ? AND offset = ? AND segment = "
          "(SELECT id FROM segments NOT INDEXED WHERE name = ?)")
      .with(segment_id(to.segment), to.offset, to.length, bytes_of_key(key), from.offset,
            std::string_view(from.segment))
      .run();
}

int64_t Catalogue::drop_oldest(int64_t bytes, int64_t keep_since) {
  std::vector<ChunkKey> keys;
  int64_t dropped = 0;
  Database::Statement& row =
      database_.statement("SELECT key, length FROM records WHERE used < ?1 OR used > ?2 ORDER BY used <= ?2, used")
          .with(keep_since, wall_clock());
  while (dropped < bytes && row.step()) {
    const std::span<const std::byte> key = row.bytes(0);
    if (key.size() != sizeof(ChunkKey)) throw DatabaseError(SQLITE_CORRUPT, "a key of another length");
    std::copy(key.begin(), key.end(), keys.emplace_back().begin());
    dropped += std::max<int64_t>(row.integer(1), 0);
  }
  row.done();
  for (const ChunkKey& key : keys)
    database_.statement("DELETE FROM records WHERE key = ?").with(bytes_of_key(key)).run();
  return static_cast<int64_t>(keys.size());
}

void Catalogue::remove_segment(const std::string& segment) {
  const std::optional<int64_t> id = find_segment(segment);
  if (!id) return;
  database_.statement("DELETE FROM records WHERE segment = ?").with(*id).run();
  database_.statement("DELETE FROM segments WHERE id = ?").with(*id).run();
}

void Catalogue::clear() {
  database_.statement("DELETE FROM records").with().run();
  database_.statement("DELETE FROM segments").with().run();
}

}  // namespace cepe::context
