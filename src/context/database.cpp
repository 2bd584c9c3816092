#include "context/database.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>

namespace cepe::context {
namespace {

[[noreturn]] void fail(sqlite3* database, int code) {
  throw DatabaseError(database ? sqlite3_extended_errcode(database) : code,
                      database ? sqlite3_errmsg(database) : sqlite3_errstr(code));
}

// SQLite waits for whoever writes, but gives a reader up, whatever time it was told, that others get ahead of at each
// of a hundred attempts (SQLITE_PROTOCOL).
template <class Attempt>
int while_others_are_ahead(Attempt attempt) {
  using Clock = std::chrono::steady_clock;
  const auto give_up = Clock::now() + Database::usual_wait;
  int code = attempt();
  while (code == SQLITE_PROTOCOL && Clock::now() < give_up) {
    sqlite3_sleep(1);
    code = attempt();
  }
  return code;
}

void make_private_file(const base::Path& file) {
  // Only where it is new: closing a file that SQLite has open would let go of its locks.
  const int made = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (made >= 0) ::close(made);
}

}  // namespace

bool DatabaseError::is_damage() const {
  if (code_ == SQLITE_IOERR_CORRUPTFS || code_ == SQLITE_IOERR_SHORT_READ) return true;
  switch (code_ & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
    case SQLITE_ERROR:  // our own statements are right: a table or a column has another name
    case SQLITE_SCHEMA:
    case SQLITE_MISMATCH:
    case SQLITE_CONSTRAINT:
    case SQLITE_TOOBIG:
    case SQLITE_EMPTY:
      return true;
    default:
      return false;
  }
}

bool DatabaseError::is_of_disk() const {
  const int code = code_ & 0xff;
  return !is_damage() && (code == SQLITE_FULL || code == SQLITE_IOERR || code == SQLITE_CANTOPEN);
}

bool DatabaseError::is_full() const { return code_ == SQLITE_IOERR_SHMSIZE || (code_ & 0xff) == SQLITE_FULL; }

bool DatabaseError::is_busy() const {
  const int code = code_ & 0xff;
  return code == SQLITE_BUSY || code == SQLITE_LOCKED || code == SQLITE_PROTOCOL;
}

Database::Statement::Statement(sqlite3* database, const char* text) : database_(database) {
  const int code = while_others_are_ahead(
      [&] { return sqlite3_prepare_v3(database, text, -1, SQLITE_PREPARE_PERSISTENT, &statement_, nullptr); });
  if (code != SQLITE_OK) fail(database, code);
}

Database::Statement::~Statement() { sqlite3_finalize(statement_); }

void Database::Statement::done() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

bool Database::Statement::step() {
  const int code = while_others_are_ahead([&] {
    const int result = sqlite3_step(statement_);
    if (result == SQLITE_PROTOCOL) sqlite3_reset(statement_);  // it has not begun: no row was read
    return result;
  });
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) {
    const DatabaseError error(sqlite3_extended_errcode(database_), sqlite3_errmsg(database_));
    sqlite3_reset(statement_);
    throw error;
  }
  sqlite3_reset(statement_);
  return false;
}

std::string Database::Statement::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  return text ? std::string(text, static_cast<size_t>(sqlite3_column_bytes(statement_, column))) : std::string();
}

std::span<const std::byte> Database::Statement::bytes(int column) const {
  const auto* bytes = static_cast<const std::byte*>(sqlite3_column_blob(statement_, column));
  return {bytes, bytes ? static_cast<size_t>(sqlite3_column_bytes(statement_, column)) : 0};
}

void Database::Statement::bind(int index, int64_t value) {
  if (const int code = sqlite3_bind_int64(statement_, index, value); code != SQLITE_OK) fail(database_, code);
}

void Database::Statement::bind(int index, std::string_view text) {
  const int code = sqlite3_bind_text(statement_, index, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
  if (code != SQLITE_OK) fail(database_, code);
}

void Database::Statement::bind(int index, std::span<const std::byte> bytes) {
  const int code = sqlite3_bind_blob(statement_, index, bytes.data(), static_cast<int>(bytes.size()), SQLITE_TRANSIENT);
  if (code != SQLITE_OK) fail(database_, code);
}

Database::Database() { open("", SQLITE_OPEN_MEMORY, nullptr); }

Database::Database(const base::Path& file, const char* vfs) {
  if (!vfs) make_private_file(file);
  open(file.c_str(), SQLITE_OPEN_NOFOLLOW, vfs);
}

void Database::open(const char* name, int flags, const char* vfs) {
  flags |= SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX;
  const int code = sqlite3_open_v2(name, &database_, flags, vfs);
  if (code != SQLITE_OK) {
    const DatabaseError error(database_ ? sqlite3_extended_errcode(database_) : code, sqlite3_errstr(code));
    sqlite3_close(database_);
    throw error;
  }
  wait_at_most(usual_wait);
  sqlite3_db_config(database_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(database_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
}

Database::~Database() {
  statements_.clear();
  sqlite3_close(database_);
}

void Database::copy(Database& source) {
  sqlite3_backup* backup = sqlite3_backup_init(database_, "main", source.database_, "main");
  if (!backup) fail(database_, SQLITE_ERROR);
  sqlite3_backup_step(backup, -1);
  if (const int code = sqlite3_backup_finish(backup); code != SQLITE_OK) fail(database_, code);
}

void Database::run(const char* text) {
  const int code = while_others_are_ahead([&] { return sqlite3_exec(database_, text, nullptr, nullptr, nullptr); });
  if (code != SQLITE_OK) fail(database_, code);
}

Database::Statement& Database::statement(const char* text) {
  std::unique_ptr<Statement>& kept = statements_[text];
  if (!kept) kept = std::make_unique<Statement>(database_, text);
  return *kept;
}

Transaction::Transaction(Database& database) : database_(database) { database_.run("BEGIN IMMEDIATE"); }

Transaction::~Transaction() {
  if (!open_) return;
  try {
    database_.run("ROLLBACK");
  } catch (const DatabaseError&) {  // it has rolled back by itself
  }
}

void Transaction::commit() {
  database_.run("COMMIT");
  open_ = false;
}

}  // namespace cepe::context
