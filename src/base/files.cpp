#include "base/files.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "base/error.h"

namespace cepe::base {
namespace {

// A link's target where `path` is a symbolic link to nothing.
std::optional<Path> missing_target(const Path& path) {
  std::error_code none;
  if (!std::filesystem::is_symlink(path, none) || std::filesystem::exists(path, none)) return {};
  return std::filesystem::read_symlink(path, none);
}

[[noreturn]] void refuse_link(const Path& path, const Path& target) {
  throw Error(ErrorCode::not_found, path.string() + ": a symbolic link to " + target.string() +
                                        ", where nothing is; fetch or copy that file again, or remove the link");
}

[[noreturn]] void fail_to(const Path& path, const char* action) {
  const int reason = errno;
  if (const auto target = missing_target(path); target && reason == ENOENT) refuse_link(path, *target);
  const ErrorCode code = reason == ENOENT || reason == ENOTDIR ? ErrorCode::not_found : ErrorCode::io;
  throw Error(code, path.string() + ": cannot " + action + ": " + std::strerror(reason));
}

[[noreturn]] void fail_to_begin(const Path& path) {
  const Path folder = path.parent_path();
  if (errno == ENOENT && !folder.empty() && ::access(folder.c_str(), F_OK) != 0) {
    throw Error(ErrorCode::not_found,
                path.string() + ": cannot be written: there is no folder " + folder.string() + "; make it first");
  }
  fail_to(path, "write beside");
}

// Of the file that is to be replaced, if there is one; not of what a link points to.
std::optional<mode_t> permissions_of(const Path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return {};
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::invalid_argument,
                path.string() + ": this is a folder, device or pipe; only a file can be replaced");
  }
  std::error_code none;
  if (std::filesystem::is_symlink(path, none)) return {};
  return status.st_mode & 0777;
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

Mapping::Mapping(int descriptor, size_t bytes) {
  void* address = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, descriptor, 0);
  if (address != MAP_FAILED) bytes_ = {static_cast<const std::byte*>(address), bytes};
}

Mapping::~Mapping() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

Mapping::Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

void refuse_irregular(const Path& path, bool is_folder) {
  throw Error(ErrorCode::invalid_argument,
              path.string() + (is_folder ? ": this is a folder; expected a file" : ": not a regular file"));
}

MappedFile::MappedFile(const Path& path) : path_(path) {
  // Without O_NONBLOCK opening a named pipe waits until somebody writes to it.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) fail_to(path, "open");
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_to(path, "read");
  if (!S_ISREG(status.st_mode)) refuse_irregular(path, S_ISDIR(status.st_mode));
  if (status.st_size == 0) return;
  mapping_ = Mapping(file.get(), static_cast<size_t>(status.st_size));
  if (mapping_.bytes().empty()) fail_to(path, "map");
}

bool is_there(const Path& path) {
  std::error_code problem;
  const std::filesystem::file_status status = std::filesystem::status(path, problem);
  if (std::filesystem::exists(status)) return true;
  if (const auto target = missing_target(path)) refuse_link(path, *target);
  if (status.type() == std::filesystem::file_type::not_found) return false;
  throw Error(ErrorCode::io, path.string() + ": cannot look at: " + problem.message());
}

bool may_be_there(const Path& path) {
  std::error_code problem;
  return std::filesystem::exists(path, problem) || problem;
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
  const std::optional<mode_t> replaced = permissions_of(path);
  // Not mkostemp, whose files are 0600: the system takes the umask off, which only changing it would tell us.
  std::random_device random;
  do {
    temporary_ = path.string() + "." + std::to_string(100'000 + random() % 900'000);
    descriptor_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, replaced.value_or(0666));
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) fail_to_begin(path);
  if (replaced) ::fchmod(descriptor_, *replaced);
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

Path home_folder() {
  if (const char* folder = std::getenv("HOME"); folder && *folder) return folder;
  const passwd* user = ::getpwuid(::getuid());
  return user && user->pw_dir ? Path(user->pw_dir) : Path();
}

Path default_cache_folder() {
  if (const char* folder = std::getenv("CEPE_CACHE_DIR"); folder && *folder) return folder;
  if (const char* folder = std::getenv("XDG_CACHE_HOME"); folder && *folder) return Path(folder) / "cepe";
  const Path home = home_folder();
  return home.empty() ? Path("/tmp/cepe-cache") : home / ".cache" / "cepe";
}

}  // namespace cepe::base
