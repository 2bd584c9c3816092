#include "context/disk_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <random>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "context/record_folder.h"

namespace cepe::context {
namespace {

constexpr int64_t second = 1'000'000'000;
constexpr int64_t abandoned_after = 3600 * second;  // writing a record takes milliseconds

// Exact, where the kernel's own stamps of files lag by some milliseconds.
int64_t now() {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return time.tv_sec * second + time.tv_nsec;
}

void mark_used(int descriptor) {
  const int64_t time = now();
  const timespec both[2] = {{time / second, time % second}, {time / second, time % second}};
  ::futimens(descriptor, both);  // where it may not be, the record only seems older than it is
}

std::string random_name() {
  std::random_device source;
  static constexpr char digits[] = "0123456789abcdef";
  std::string name;
  for (size_t i = 0; i < temporary_digits; ++i) name += digits[source() % 16];
  return name;
}

// Makes the folder unless it is there; the folders above it with the user's usual mode. "" or what is wrong.
std::string make_private_folder(const base::Path& folder) {
  std::error_code ignored;  // what is wrong with them mkdir says, too
  if (folder.has_parent_path()) std::filesystem::create_directories(folder.parent_path(), ignored);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return std::strerror(errno);
  struct stat status {};
  if (::stat(folder.c_str(), &status) != 0) return std::strerror(errno);
  if (!S_ISDIR(status.st_mode)) return "not a folder";
  if (status.st_mode & S_IWOTH) return "every user may write to it";
  return "";
}

// Writes the record under a temporary name and renames it. False with errno where the system refuses.
bool put_record(const base::Path& folder, const ChunkKey& key, const RecordShape& shape,
                std::span<const std::byte> values) {
  const RecordName name(key);
  ::mkdir((folder / name.subfolder).c_str(), 0700);
  const Descriptor place = open_subfolder(folder, name.subfolder);
  if (!place) return false;
  const std::string temporary = name.file + "." + random_name();
  const Descriptor file(
      ::openat(place.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return false;
  bool written = write_record(file.get(), key, shape, values);
  if (written) {
    mark_used(file.get());
    written = ::renameat(place.get(), temporary.c_str(), place.get(), name.file.c_str()) == 0;
  }
  if (!written) {
    const int reason = errno;
    ::unlinkat(place.get(), temporary.c_str(), 0);
    errno = reason;
  }
  return written;
}

}  // namespace

DiskStore::DiskStore(base::Path folder, int64_t max_bytes) : folder_(std::move(folder)), max_bytes_(max_bytes) {
  if (max_bytes < 0) {
    throw base::Error(base::ErrorCode::invalid_argument,
                      "a limit of " + std::to_string(max_bytes) + " bytes for " + folder_.string());
  }
  request_start_ = now();
  if (const std::string wrong = make_private_folder(folder_); !wrong.empty()) {
    stop_writing(wrong);
    readable_ = false;
  }
}

void DiskStore::begin_request() {
  request_start_ = now();
  full_ = false;
}

bool DiskStore::read(const ChunkKey& key, const RecordShape& shape, std::span<std::byte> values) {
  if (!readable_) return false;
  const RecordName name(key);
  const Descriptor place = open_subfolder(folder_, name.subfolder);
  if (!place) return false;
  // Without O_NONBLOCK a pipe of that name would hang the reader.
  const Descriptor file(::openat(place.get(), name.file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file && errno != ELOOP) return false;
  const std::string wrong = file ? read_record(file.get(), key, shape, values) : "a link";
  if (wrong.empty()) {
    mark_used(file.get());
    return true;
  }
  base::warn((folder_ / name.subfolder / name.file).string() + ": " + wrong + "; removed, its text is encoded again");
  ::unlinkat(place.get(), name.file.c_str(), 0);
  return false;
}

void DiskStore::write(const ChunkKey& key, const RecordShape& shape, std::span<const std::byte> values) {
  const auto bytes = static_cast<int64_t>(shape.file_bytes());
  if (!writable_ || !make_room(bytes)) return;
  bool written = put_record(folder_, key, shape, values);
  for (int again = 0; again < 10 && !written && errno == ENOENT; ++again) {  // somebody cleared the folder meanwhile
    make_private_folder(folder_);
    written = put_record(folder_, key, shape, values);
  }
  if (!written) return stop_writing(std::strerror(errno));
  total_ += bytes;
  since_scan_ += bytes;
}

bool DiskStore::make_room(int64_t bytes) {
  // What others write is seen only by looking.
  const bool look = !scanned_ || total_ + bytes > max_bytes_ || since_scan_ > max_bytes_ / 16;
  if (look && !full_) {
    try {
      evict(bytes);
    } catch (const base::Error& error) {  // may be written to, but not listed
      stop_writing(error.what());
      return false;
    }
  }
  return !full_;
}

void DiskStore::evict(int64_t bytes) {
  std::vector<FoundRecord> found = list_records(folder_);
  scanned_ = true;
  since_scan_ = total_ = 0;
  for (const FoundRecord& record : found) {
    if (!record.temporary) total_ += record.bytes;
    if (record.temporary && record.used < now() - abandoned_after) remove_record(folder_, record);
  }
  if (total_ + bytes <= max_bytes_) return;
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.used < b.used; });
  const int64_t target = max_bytes_ - max_bytes_ / 16 - bytes;  // some air, so as not to look again at once
  for (const FoundRecord& record : found) {
    if (total_ <= target || record.used >= request_start_) break;
    if (!record.temporary && remove_record(folder_, record)) total_ -= record.bytes;
  }
  full_ = total_ + bytes > max_bytes_;
  if (full_ && !std::exchange(full_said_, true)) {
    base::notice(folder_.string() + ": this text alone fills the " + base::human_bytes(max_bytes_) +
                 " kept there; the rest of it is encoded anew each time");
  }
}

void DiskStore::stop_writing(const std::string& what) {
  base::warn(folder_.string() + ": encoded text is not kept: " + what);
  writable_ = false;
}

}  // namespace cepe::context
