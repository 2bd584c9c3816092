// A file that grows record by record: never half a record, neither after an error nor on a full disk.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/files.h"

namespace cepe::train {

class AppendedFile {
 public:
  enum class Start {
    fresh,   // the file must not be there yet
    at_end,  // made where it is missing
  };
  // Errors: io, not_found (no such folder). `fresh` where the file is there: io.
  AppendedFile(const base::Path& file, Start start);
  ~AppendedFile();  // flushes as well as it can
  AppendedFile(const AppendedFile&) = delete;
  AppendedFile& operator=(const AppendedFile&) = delete;

  void append(std::string_view record);  // kept until flush, or until there is much of it
  // Hands everything to the operating system: a crash of this process loses nothing of it. Errors: io (a full disk);
  // what was appended since the last flush is then forgotten, and the file ends where that flush left it.
  void flush();

 private:
  void write_pending();

  base::Path file_;
  int descriptor_ = -1;
  int64_t size_ = 0;  // of what is in the file
  std::string pending_;
};

}  // namespace cepe::train
