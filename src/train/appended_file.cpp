#include "train/appended_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <exception>

#include "base/error.h"

namespace cepe::train {
namespace {

constexpr size_t most_pending = size_t{1} << 16;

[[noreturn]] void fail(const base::Path& file, const char* action, int reason) {
  const bool missing = reason == ENOENT || reason == ENOTDIR;
  throw base::Error(missing ? base::ErrorCode::not_found : base::ErrorCode::io,
                    file.string() + ": cannot " + action + ": " + std::strerror(reason));
}

}  // namespace

AppendedFile::AppendedFile(const base::Path& file, Start start) : file_(file) {
  const int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | (start == Start::fresh ? O_EXCL : 0);
  descriptor_ = ::open(file.c_str(), flags, 0666);
  if (descriptor_ < 0) fail(file, "open for writing", errno);
  size_ = ::lseek(descriptor_, 0, SEEK_END);
}

AppendedFile::~AppendedFile() {
  try {
    flush();
  } catch (const std::exception&) {  // whoever wants to know calls flush
  }
  ::close(descriptor_);
}

void AppendedFile::append(std::string_view record) {
  pending_ += record;
  if (pending_.size() > most_pending) flush();
}

void AppendedFile::flush() {
  try {
    write_pending();
  } catch (...) {
    pending_.clear();
    throw;
  }
  pending_.clear();
}

void AppendedFile::write_pending() {
  std::string_view left = pending_;
  while (!left.empty()) {
    const ssize_t written = ::write(descriptor_, left.data(), left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int reason = errno;
      // Where even that is refused a torn record stays; readers of both kinds of file step over one at the end.
      if (::ftruncate(descriptor_, size_) != 0) fail(file_, "write, nor take back what was half written", reason);
      fail(file_, "write", reason);
    }
    left.remove_prefix(static_cast<size_t>(written));
  }
  size_ += static_cast<int64_t>(pending_.size());
}

}  // namespace cepe::train
