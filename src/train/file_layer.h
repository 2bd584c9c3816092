// What saving a checkpoint asks of a file system, step by step, so that a test can put one in its place that loses
// everything which was not synced. Every error is base::Error: io with the operating system's reason, or not_found.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"

namespace cepe::train {

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

  virtual ~FileLayer() = default;
  virtual bool exists(const base::Path& path) = 0;
  virtual void create_folder(const base::Path& folder) = 0;  // its parent is there
  virtual std::unique_ptr<Output> create(const base::Path& file) = 0;
  // Within one folder; `to` is not there.
  virtual void rename(const base::Path& from, const base::Path& to) = 0;
  // Names that were created, renamed or removed in this folder are on the medium afterwards.
  virtual void sync_folder(const base::Path& folder) = 0;
  virtual void remove(const base::Path& path) = 0;                      // a file, or a folder with all that is in it
  virtual std::vector<std::string> list(const base::Path& folder) = 0;  // names, in any order
  virtual Content read(const base::Path& file) = 0;
};

// The operating system's. One for the process; it holds no state.
FileLayer& disk();

}  // namespace cepe::train
