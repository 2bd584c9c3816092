// A file that grows at its end and can be cut back to a size that is known to be safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/files.h"

namespace cepe::data {

class AppendFile {
 public:
  // Made where it is not there; cut to `size` bytes. Errors: io; corrupt where it has fewer.
  AppendFile(const base::Path& path, int64_t size);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // Buffered. Errors: io.
  void append(std::span<const std::byte> bytes);
  int64_t size() const { return size_; }  // with what is still in the buffer
  // Returns once all of it is on the disk. Errors: io.
  void sync();

 private:
  void flush();

  base::Path path_;
  int descriptor_ = -1;
  int64_t size_ = 0;
  std::string buffer_;
};

// The names in a folder are on the disk. Errors: io.
void sync_folder(const base::Path& folder);

// Held while it lives: nobody else can hold it for the same folder. Errors: io; invalid_argument where somebody does.
class FolderLock {
 public:
  explicit FolderLock(const base::Path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace cepe::data
