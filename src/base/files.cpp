#include "base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace cepe::base {
namespace {

[[noreturn]] void fail_to(const Path& path, const char* action) {
  const int reason = errno;
  const ErrorCode code = reason == ENOENT || reason == ENOTDIR ? ErrorCode::not_found : ErrorCode::io;
  throw Error(code, path.string() + ": cannot " + action + ": " + std::strerror(reason));
}

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

}  // namespace

MappedFile::MappedFile(const Path& path) : path_(path) {
  // Without O_NONBLOCK opening a named pipe waits until somebody writes to it.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) fail_to(path, "open");
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_to(path, "read");
  if (!S_ISREG(status.st_mode)) throw Error(ErrorCode::invalid_argument, path.string() + ": not a regular file");
  if (status.st_size == 0) return;
  const auto size = static_cast<size_t>(status.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) fail_to(path, "map");
  bytes_ = {static_cast<const std::byte*>(address), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

std::string read_file(const Path& path, size_t max_bytes) {
  const MappedFile file(path);
  if (file.bytes().size() > max_bytes) {
    throw Error(ErrorCode::invalid_argument, path.string() + ": " + std::to_string(file.bytes().size()) +
                                                 " bytes; at most " + std::to_string(max_bytes) + " are read");
  }
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

void refuse_lfs_pointer(std::string_view content, const Path& path) {
  if (!content.starts_with("version https://git-lfs.github.com/spec/")) return;
  throw Error(
      ErrorCode::invalid_argument,
      path.string() + ": only a pointer of Git LFS, not the file itself; fetch it with 'git lfs pull' in its folder");
}

FileWriter::FileWriter(const Path& path) : path_(path) {
  std::string pattern = path.string() + ".XXXXXX";
  descriptor_ = ::mkostemp(pattern.data(), O_CLOEXEC);
  if (descriptor_ < 0) fail_to(path, "write beside");
  temporary_ = pattern;
  const mode_t mask = ::umask(0);
  ::umask(mask);
  ::fchmod(descriptor_, 0666 & ~mask);
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void FileWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_to(path_, "write");
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void FileWriter::write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

void FileWriter::commit() {
  if (::fsync(descriptor_) != 0) fail_to(path_, "sync");
  ::close(std::exchange(descriptor_, -1));
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_to(path_, "replace");
  temporary_.clear();
  const Path folder = path_.has_parent_path() ? path_.parent_path() : Path(".");
  const Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() >= 0) ::fsync(directory.get());
}

void replace_file(const Path& path, std::string_view content) {
  FileWriter writer(path);
  writer.write(content);
  writer.commit();
}

Path default_cache_folder() {
  if (const char* folder = std::getenv("CEPE_CACHE_DIR"); folder && *folder) return folder;
  if (const char* folder = std::getenv("XDG_CACHE_HOME"); folder && *folder) return Path(folder) / "cepe";
  if (const char* folder = std::getenv("HOME"); folder && *folder) return Path(folder) / ".cache" / "cepe";
  return Path("/tmp/cepe-cache");
}

}  // namespace cepe::base
