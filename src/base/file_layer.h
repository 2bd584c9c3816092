// What saving a checkpoint and keeping encoded text ask of a file system, step by step, so that a test can put one in
// its place that loses everything which was not synced. Every error is base::Error: io with the operating system's
// reason, not_found, or where a record is read corrupt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"

namespace cepe::base {

class FileLayer {
 public:
  // A new file that grows at its end. It need not be visible before sync, and after sync nothing more is appended.
  class Output {
   public:
    virtual ~Output() = default;
    virtual void append(std::span<const std::byte> bytes) = 0;
    // The bytes are on the medium afterwards. The file's name is only after sync_folder of its folder.
    virtual void sync() = 0;
  };
  // A whole file. `bytes` live as long as `owner`.
  struct Content {
    std::shared_ptr<const void> owner;
    std::span<const std::byte> bytes;
  };

  // A file that grows record by record, private to the user (0600) and to whoever holds this: other processes find it
  // locked until it is closed, however that comes about.
  class Growing {
   public:
    virtual ~Growing() = default;
    virtual int64_t size() = 0;
    virtual void append(std::span<const std::byte> bytes) = 0;  // after an error it may have grown by a part of them
    virtual void cut(int64_t size) = 0;
    virtual void sync() = 0;
    virtual bool has_name() = 0;  // false: somebody removed the file meanwhile
  };
  class Reading {
   public:
    virtual ~Reading() = default;
    virtual int64_t size() = 0;
    // Fewer bytes than asked for only at the end of the file. Any thread at any time. Errors: corrupt where the medium
    // has lost them (EIO), io for all that may be otherwise the next time.
    virtual size_t read(int64_t place, std::span<std::byte> bytes) = 0;
    // The same bytes where the system has them in memory, read from the medium by now; none where they cannot be had
    // so, or the file ends too early. Whoever cuts the file while `owner` lasts makes reading them SIGBUS.
    virtual Content map(int64_t place, size_t bytes);
  };

  virtual ~FileLayer() = default;
  virtual bool exists(const Path& path) = 0;
  virtual void create_folder(const Path& folder) = 0;  // its parent is there
  virtual std::unique_ptr<Output> create(const Path& file) = 0;
  // Within one folder; `to` is not there.
  virtual void rename(const Path& from, const Path& to) = 0;
  // Names that were created, renamed or removed in this folder are on the medium afterwards.
  virtual void sync_folder(const Path& folder) = 0;
  virtual void remove(const Path& path) = 0;                      // a file, or a folder with all that is in it
  virtual std::vector<std::string> list(const Path& folder) = 0;  // names, in any order
  virtual Content read(const Path& file) = 0;
  // `make`: a new file, nullptr where there is one of that name. Otherwise one that is there; nullptr where there is
  // none, it is no regular file (links are not followed) or somebody holds it.
  virtual std::unique_ptr<Growing> grow(const Path& file, bool make) = 0;
  // nullptr where there is none or it is no regular file; links are not followed.
  virtual std::unique_ptr<Reading> open(const Path& file) = 0;
};

// The operating system's. One for the process; it holds no state.
FileLayer& disk();

}  // namespace cepe::base
