// The operating system's files, with somebody who meddles: before a segment is opened, or a part of one is read or
// written.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/file_layer.h"

namespace cepe::test {

class MeddledFiles : public base::FileLayer {
 public:
  std::function<void()> before_open;                             // once
  std::function<void()> after_remove;                            // each time
  std::function<void(int64_t place, size_t bytes)> before_read;  // each time; what it throws is the reader's error
  std::function<void(size_t bytes)> before_append;               // likewise
  std::function<void()> before_sync;                             // of a segment, each time

  bool exists(const base::Path& path) override { return disk_.exists(path); }
  void create_folder(const base::Path& folder) override { disk_.create_folder(folder); }
  std::unique_ptr<Output> create(const base::Path& file) override { return disk_.create(file); }
  void rename(const base::Path& from, const base::Path& to) override { disk_.rename(from, to); }
  void sync_folder(const base::Path& folder) override { disk_.sync_folder(folder); }
  void remove(const base::Path& path) override {
    disk_.remove(path);
    if (after_remove) after_remove();
  }
  std::vector<std::string> list(const base::Path& folder) override { return disk_.list(folder); }
  Content read(const base::Path& file) override { return disk_.read(file); }
  std::unique_ptr<Growing> grow(const base::Path& file, bool make) override {
    auto grown = disk_.grow(file, make);
    return grown ? std::make_unique<Grown>(*this, std::move(grown)) : nullptr;
  }
  std::unique_ptr<Reading> open(const base::Path& file) override {
    if (auto meddle = std::exchange(before_open, nullptr)) meddle();
    auto opened = disk_.open(file);
    return opened ? std::make_unique<Read>(*this, std::move(opened)) : nullptr;
  }

 private:
  class Read : public Reading {
   public:
    Read(MeddledFiles& files, std::unique_ptr<Reading> file) : files_(files), file_(std::move(file)) {}
    int64_t size() override { return file_->size(); }
    size_t read(int64_t place, std::span<std::byte> bytes) override {
      if (files_.before_read) files_.before_read(place, bytes.size());
      return file_->read(place, bytes);
    }

   private:
    MeddledFiles& files_;
    std::unique_ptr<Reading> file_;
  };

  class Grown : public Growing {
   public:
    Grown(MeddledFiles& files, std::unique_ptr<Growing> file) : files_(files), file_(std::move(file)) {}
    int64_t size() override { return file_->size(); }
    void append(std::span<const std::byte> bytes) override {
      if (files_.before_append) files_.before_append(bytes.size());
      file_->append(bytes);
    }
    void cut(int64_t size) override { file_->cut(size); }
    void sync() override {
      if (files_.before_sync) files_.before_sync();
      file_->sync();
    }
    bool has_name() override { return file_->has_name(); }

   private:
    MeddledFiles& files_;
    std::unique_ptr<Growing> file_;
  };

  base::FileLayer& disk_ = base::disk();
};

}  // namespace cepe::test
