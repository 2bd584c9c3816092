#include "train/file_layer.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace cepe::train {
namespace {

using base::Error;
using base::ErrorCode;
using base::Path;

[[noreturn]] void fail(const Path& path, std::string_view action, const std::error_code& reason) {
  const ErrorCode code = reason == std::errc::no_such_file_or_directory ? ErrorCode::not_found : ErrorCode::io;
  throw Error(code, path.string() + ": cannot " + std::string(action) + ": " + std::strerror(reason.value()));
}

std::error_code last_error() { return {errno, std::generic_category()}; }

class OpenDescriptor {
 public:
  OpenDescriptor(const Path& path, int flags) : value_(::open(path.c_str(), flags | O_CLOEXEC)) {}
  ~OpenDescriptor() {
    if (value_ >= 0) ::close(value_);
  }
  OpenDescriptor(const OpenDescriptor&) = delete;
  OpenDescriptor& operator=(const OpenDescriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

class DiskOutput : public FileLayer::Output {
 public:
  explicit DiskOutput(const Path& file) : writer_(file) {}
  void append(std::span<const std::byte> bytes) override { writer_.write(bytes); }
  void sync() override { writer_.commit(); }

 private:
  base::FileWriter writer_;
};

// Reads it once in the plain way: where the medium cannot, that is an error here, but a signal that ends the process
// when it happens inside a mapping.
void check_readable(const Path& file) {
  const OpenDescriptor opened(file, O_RDONLY);
  if (opened.get() < 0) fail(file, "open", last_error());
  static thread_local std::array<std::byte, size_t{1} << 18> buffer;
  while (true) {
    const ssize_t count = ::read(opened.get(), buffer.data(), buffer.size());
    if (count == 0) return;
    if (count < 0 && errno != EINTR) fail(file, "read", last_error());
  }
}

class Disk : public FileLayer {
 public:
  bool exists(const Path& path) override {
    std::error_code error;
    const bool found = std::filesystem::exists(std::filesystem::symlink_status(path, error));
    if (error && error != std::errc::no_such_file_or_directory) fail(path, "look at", error);
    return found;
  }

  void create_folder(const Path& folder) override {
    std::error_code error;
    std::filesystem::create_directory(folder, error);
    if (error) fail(folder, "create this folder", error);
  }

  std::unique_ptr<Output> create(const Path& file) override { return std::make_unique<DiskOutput>(file); }

  void rename(const Path& from, const Path& to) override {
    std::error_code error;
    std::filesystem::rename(from, to, error);
    if (error) fail(from, "rename to " + to.filename().string(), error);
  }

  void sync_folder(const Path& folder) override {
    const OpenDescriptor opened(folder, O_RDONLY | O_DIRECTORY);
    // Not ours to list, so we make nothing in it: somebody else's folder above the one that holds checkpoints.
    if (opened.get() < 0 && errno == EACCES) return;
    if (opened.get() < 0) fail(folder, "open", last_error());
    // Some file systems (network, user space) know no sync of folders, and say so.
    if (::fsync(opened.get()) != 0 && errno != EINVAL && errno != ENOTSUP) fail(folder, "sync", last_error());
  }

  void remove(const Path& path) override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) fail(path, "remove", error);
  }

  std::vector<std::string> list(const Path& folder) override {
    std::error_code error;
    std::vector<std::string> names;
    std::filesystem::directory_iterator entry(folder, error);
    for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
      names.push_back(entry->path().filename().string());
    }
    if (error) fail(folder, "list", error);
    return names;
  }

  Content read(const Path& file) override {
    check_readable(file);
    const auto mapped = std::make_shared<base::MappedFile>(file);
    return {mapped, mapped->bytes()};
  }
};

}  // namespace

FileLayer& disk() {
  static Disk layer;
  return layer;
}

}  // namespace cepe::train
