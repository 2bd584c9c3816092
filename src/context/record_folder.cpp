#include "context/record_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace cepe::context {
namespace {

constexpr std::string_view suffix = ".states";
constexpr size_t key_digits = 64;

struct CloseFolder {
  void operator()(DIR* folder) const { ::closedir(folder); }
};
using OpenFolder = std::unique_ptr<DIR, CloseFolder>;

bool is_hexadecimal(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

enum class NameKind { foreign, record, temporary };

NameKind kind_of(std::string_view subfolder, std::string_view name) {
  if (name.size() < key_digits + suffix.size() || !name.starts_with(subfolder)) return NameKind::foreign;
  if (!is_hexadecimal(name.substr(0, key_digits))) return NameKind::foreign;
  std::string_view rest = name.substr(key_digits);
  if (!rest.starts_with(suffix)) return NameKind::foreign;
  rest.remove_prefix(suffix.size());
  if (rest.empty()) return NameKind::record;
  const bool unfinished = rest.size() == temporary_digits + 1 && rest.front() == '.' && is_hexadecimal(rest.substr(1));
  return unfinished ? NameKind::temporary : NameKind::foreign;
}

std::vector<std::string> names_in(DIR* folder) {
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(folder)) names.emplace_back(entry->d_name);
  return names;
}

void list_subfolder(const base::Path& folder, const std::string& subfolder, std::vector<FoundRecord>& found) {
  const int descriptor = ::open((folder / subfolder).c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0) return;  // a file, a link, or gone meanwhile
  const OpenFolder opened(::fdopendir(descriptor));
  if (!opened) {
    ::close(descriptor);
    return;
  }
  for (const std::string& name : names_in(opened.get())) {
    const NameKind kind = kind_of(subfolder, name);
    struct stat status {};
    if (kind == NameKind::foreign || ::fstatat(descriptor, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!S_ISREG(status.st_mode)) continue;
    const int64_t used = status.st_mtim.tv_sec * int64_t{1'000'000'000} + status.st_mtim.tv_nsec;
    found.push_back({subfolder, name, status.st_size, used, kind == NameKind::temporary});
  }
}

std::vector<std::string> subfolders_of(const base::Path& folder) {
  const OpenFolder opened(::opendir(folder.c_str()));
  if (!opened && errno == ENOENT) return {};
  if (!opened) throw base::Error(base::ErrorCode::io, folder.string() + ": cannot list: " + std::strerror(errno));
  std::vector<std::string> names = names_in(opened.get());
  std::erase_if(names, [](const std::string& name) { return name.size() != 2 || !is_hexadecimal(name); });
  return names;
}

}  // namespace

Descriptor::~Descriptor() {
  if (value_ >= 0) ::close(value_);
}

Descriptor::Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}

RecordName::RecordName(const ChunkKey& key) {
  const std::string digits = base::to_hex(key);
  subfolder = digits.substr(0, 2);
  file = digits + std::string(suffix);
}

Descriptor open_subfolder(const base::Path& folder, const std::string& name) {
  return Descriptor(::open((folder / name).c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

std::vector<FoundRecord> list_records(const base::Path& folder) {
  std::vector<FoundRecord> found;
  for (const std::string& subfolder : subfolders_of(folder)) list_subfolder(folder, subfolder, found);
  return found;
}

bool remove_record(const base::Path& folder, const FoundRecord& record) {
  const Descriptor place = open_subfolder(folder, record.subfolder);
  return place && ::unlinkat(place.get(), record.file.c_str(), 0) == 0;
}

StoredRecords stored_records(const base::Path& folder) {
  StoredRecords stored;
  for (const FoundRecord& record : list_records(folder)) {
    if (record.temporary) continue;
    ++stored.records;
    stored.bytes += record.bytes;
  }
  return stored;
}

StoredRecords remove_records(const base::Path& folder) {
  StoredRecords removed;
  std::set<std::string> subfolders;
  for (const FoundRecord& record : list_records(folder)) {
    if (!remove_record(folder, record)) continue;
    subfolders.insert(record.subfolder);
    if (record.temporary) continue;
    ++removed.records;
    removed.bytes += record.bytes;
  }
  for (const std::string& name : subfolders) ::rmdir((folder / name).c_str());  // where nothing else is in it
  return removed;
}

}  // namespace cepe::context
