#include "base/file_layer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace cepe::base {
namespace {

[[noreturn]] void fail(const Path& path, std::string_view action, const std::error_code& reason,
                       ErrorCode otherwise = ErrorCode::io) {
  const ErrorCode code = reason == std::errc::no_such_file_or_directory ? ErrorCode::not_found : otherwise;
  throw Error(code, path.string() + ": cannot " + std::string(action) + ": " + std::strerror(reason.value()));
}

std::error_code last_error() { return {errno, std::generic_category()}; }

class OpenDescriptor {
 public:
  OpenDescriptor(const Path& path, int flags, mode_t mode = 0)
      : value_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~OpenDescriptor() {
    if (value_ >= 0) ::close(value_);
  }
  OpenDescriptor(OpenDescriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  OpenDescriptor& operator=(OpenDescriptor&&) = delete;
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
  FileWriter writer_;
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

struct stat status_of(const OpenDescriptor& file, const Path& path) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail(path, "look at", last_error());
  return status;
}

class GrowingFile : public FileLayer::Growing {
 public:
  GrowingFile(OpenDescriptor file, Path path) : file_(std::move(file)), path_(std::move(path)) {}
  int64_t size() override { return status_of(file_, path_).st_size; }
  void append(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t count = ::write(file_.get(), bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail(path_, "write", last_error());
      bytes = bytes.subspan(static_cast<size_t>(count));
    }
  }
  void cut(int64_t size) override {
    if (::ftruncate(file_.get(), size) != 0) fail(path_, "shorten", last_error());
  }
  void sync() override {
    if (::fdatasync(file_.get()) != 0) fail(path_, "sync", last_error());  // with the size, without the times
  }
  bool has_name() override { return status_of(file_, path_).st_nlink > 0; }

 private:
  OpenDescriptor file_;
  Path path_;
};

// Reads them from the medium into the system's memory. False where it cannot, which a plain look at them would tell by
// a signal. (Linux before 5.14 does not know the call: then the look has to do.)
bool is_in_memory(std::span<const std::byte> bytes) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const size_t before = reinterpret_cast<uintptr_t>(bytes.data()) % page;
  auto* first = const_cast<std::byte*>(bytes.data() - before);
  return ::madvise(first, bytes.size() + before, MADV_POPULATE_READ) == 0 || errno == EINVAL;
}

class ReadFile : public FileLayer::Reading {
 public:
  ReadFile(OpenDescriptor file, Path path) : file_(std::move(file)), path_(std::move(path)) {}
  int64_t size() override { return status_of(file_, path_).st_size; }
  size_t read(int64_t place, std::span<std::byte> bytes) override {
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t count =
          ::pread(file_.get(), bytes.data() + done, bytes.size() - done, place + static_cast<int64_t>(done));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail(path_, "read", last_error(), errno == EIO ? ErrorCode::corrupt : ErrorCode::io);
      if (count == 0) break;
      done += static_cast<size_t>(count);
    }
    return done;
  }
  FileLayer::Content map(int64_t place, size_t bytes) override {
    const std::shared_ptr<const Mapping> mapping = mapping_until(static_cast<size_t>(place) + bytes);
    if (!mapping) return {};
    ::posix_fadvise(file_.get(), place, static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);  // in large pieces
    const std::span<const std::byte> found = mapping->bytes().subspan(static_cast<size_t>(place), bytes);
    return is_in_memory(found) ? FileLayer::Content{mapping, found} : FileLayer::Content{};
  }

 private:
  // nullptr where the file ends before, or cannot be mapped.
  std::shared_ptr<const Mapping> mapping_until(size_t end) {
    const std::scoped_lock lock(mutex_);
    if (!mapping_ || mapping_->bytes().size() < end)
      mapping_ = std::make_shared<Mapping>(file_.get(), static_cast<size_t>(size()));
    return mapping_->bytes().size() < end ? nullptr : mapping_;
  }

  OpenDescriptor file_;
  Path path_;
  std::mutex mutex_;
  std::shared_ptr<const Mapping> mapping_;  // as far as the file had grown
};

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
    const auto mapped = std::make_shared<MappedFile>(file);
    return {mapped, mapped->bytes()};
  }

  std::unique_ptr<Growing> grow(const Path& file, bool make) override {
    // Without O_NONBLOCK a pipe of that name would hang us.
    OpenDescriptor opened(file, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | (make ? O_CREAT | O_EXCL : 0), 0600);
    if (opened.get() < 0 && (make ? errno == EEXIST : errno == ENOENT || errno == ELOOP || errno == ENXIO)) return {};
    if (opened.get() < 0) fail(file, make ? "create" : "open", last_error());
    if (!S_ISREG(status_of(opened, file).st_mode)) return {};
    if (::flock(opened.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return {};
      fail(file, "lock", last_error());
    }
    auto growing = std::make_unique<GrowingFile>(std::move(opened), file);
    return growing->has_name() ? std::move(growing) : nullptr;  // removed before it was locked
  }

  std::unique_ptr<Reading> open(const Path& file) override {
    OpenDescriptor opened(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (opened.get() < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ENXIO)) return {};
    if (opened.get() < 0) fail(file, "open", last_error());
    if (!S_ISREG(status_of(opened, file).st_mode)) return {};
    return std::make_unique<ReadFile>(std::move(opened), file);
  }
};

}  // namespace

FileLayer::Content FileLayer::Reading::map(int64_t, size_t) { return {}; }

FileLayer& disk() {
  static Disk layer;
  return layer;
}

}  // namespace cepe::base
