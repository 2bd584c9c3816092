// SQLite as the catalogue uses it: statements that are prepared once, transactions that end by themselves.
#pragma once

#include <sqlite3.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/files.h"

namespace cepe::context {

// Never leaves the store.
class DatabaseError : public std::runtime_error {
 public:
  DatabaseError(int code, const std::string& message) : std::runtime_error(message), code_(code) {}
  // The bytes of the catalogue are not what they should be.
  bool is_damage() const;
  // The disk is full, or refuses to read or write.
  bool is_of_disk() const;
  // There is no room on the disk: for the file that connections share, too.
  bool is_full() const;
  // Somebody else wrote for longer than we wait.
  bool is_busy() const;

 private:
  int code_;
};

class Database {
 public:
  class Statement {
   public:
    Statement(sqlite3* database, const char* text);
    ~Statement();
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;

    // Parameters in order, from the first; then `step` until it is false.
    template <class... Values>
    Statement& with(const Values&... values) {
      done();
      int index = 0;
      (bind(++index, values), ...);
      return *this;
    }
    bool step();  // true: a row
    void done();  // no further row is wanted: what was read may be changed again
    void run() {
      while (step()) {
      }
    }
    int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
    std::string text(int column) const;
    std::span<const std::byte> bytes(int column) const;

   private:
    void bind(int index, int64_t value);
    void bind(int index, std::string_view text);
    void bind(int index, std::span<const std::byte> bytes);

    sqlite3* database_;
    sqlite3_stmt* statement_ = nullptr;
  };

  Database();  // an empty one, in memory
  // Makes the file (0600) where it is not there. `vfs`: nullptr, the operating system's.
  Database(const base::Path& file, const char* vfs);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // For others who write.
  static constexpr std::chrono::milliseconds usual_wait{20000};
  void wait_at_most(std::chrono::milliseconds time) { sqlite3_busy_timeout(database_, static_cast<int>(time.count())); }

  void copy(Database& source);  // all of it, in place of what is here
  void run(const char* text);
  // Kept for the next time; `text` must be a literal.
  Statement& statement(const char* text);
  int64_t changes() const { return sqlite3_changes(database_); }

 private:
  void open(const char* name, int flags, const char* vfs);

  sqlite3* database_ = nullptr;
  std::map<const char*, std::unique_ptr<Statement>> statements_;
};

// Begun at once for writing; rolled back unless committed.
class Transaction {
 public:
  explicit Transaction(Database& database);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  Database& database_;
  bool open_ = true;
};

}  // namespace cepe::context
