#include "data/append_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace cepe::data {
namespace {

using base::Error;
using base::ErrorCode;

constexpr size_t buffer_bytes = size_t{1} << 20;

[[noreturn]] void fail_to(const base::Path& path, const char* action) {
  throw Error(ErrorCode::io, path.string() + ": cannot " + action + ": " + std::strerror(errno));
}

int open_folder(const base::Path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail_to(folder, "open");
  return descriptor;
}

}  // namespace

AppendFile::AppendFile(const base::Path& path, int64_t size) : path_(path), size_(size) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_to(path, "open");
  struct stat status {};
  const bool known = ::fstat(descriptor_, &status) == 0;
  if (known && status.st_size >= size && ::ftruncate(descriptor_, size) == 0) return;
  const int reason = errno;
  ::close(descriptor_);
  errno = reason;
  if (!known || status.st_size >= size) fail_to(path, "cut");
  throw Error(ErrorCode::corrupt, path.string() + ": " + std::to_string(status.st_size) + " bytes; at least " +
                                      std::to_string(size) + " were written");
}

AppendFile::~AppendFile() { ::close(descriptor_); }

void AppendFile::append(std::span<const std::byte> bytes) {
  buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  size_ += static_cast<int64_t>(bytes.size());
  if (buffer_.size() >= buffer_bytes) flush();
}

void AppendFile::flush() {
  while (!buffer_.empty()) {
    const ssize_t written = ::write(descriptor_, buffer_.data(), buffer_.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_to(path_, "write");
    buffer_.erase(0, static_cast<size_t>(written));
  }
}

void AppendFile::sync() {
  flush();
  if (::fsync(descriptor_) != 0) fail_to(path_, "sync");
}

void sync_folder(const base::Path& folder) {
  const int descriptor = open_folder(folder);
  const bool synced = ::fsync(descriptor) == 0;
  ::close(descriptor);
  if (!synced) fail_to(folder, "sync");
}

FolderLock::FolderLock(const base::Path& folder) : descriptor_(open_folder(folder)) {
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
  const bool taken = errno == EWOULDBLOCK;
  ::close(descriptor_);
  if (!taken) fail_to(folder, "lock");
  throw Error(ErrorCode::invalid_argument, folder.string() + ": another program is writing this folder");
}

FolderLock::~FolderLock() { ::close(descriptor_); }

}  // namespace cepe::data
