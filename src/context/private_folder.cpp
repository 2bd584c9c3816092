// The folder of the disk tier, and what earlier versions left in it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "context/disk_tier.h"

namespace cepe::context {
namespace {

namespace fs = std::filesystem;

constexpr int most_makings = 10;  // where somebody removes the folder under us

bool is_hexadecimal(std::string_view text) { return text.find_first_not_of("0123456789abcdef") == std::string::npos; }

// <key in 64 digits>.states, and what was being written with "." and 16 digits more.
bool is_earlier_record(const std::string& name) {
  constexpr std::string_view suffix = ".states";
  constexpr size_t digits = 64, temporary = 17;
  const size_t whole = digits + suffix.size();
  if (name.size() != whole && name.size() != whole + temporary) return false;
  return is_hexadecimal(std::string_view(name).substr(0, digits)) && name.substr(digits, suffix.size()) == suffix &&
         (name.size() == whole || (name[whole] == '.' && is_hexadecimal(std::string_view(name).substr(whole + 1))));
}

// What is acknowledged in a folder is safe only where the folder's own name is.
void sync_name(const base::Path& path) {
  try {
    base::disk().sync_folder(path.has_parent_path() ? path.parent_path() : base::Path("."));
  } catch (const base::Error& error) {
    base::detail(error.what());
  }
}

// What is wrong with them, making the folder itself will say.
void make_parents(const base::Path& folder) {
  const base::Path parent = folder.parent_path();
  std::error_code problem;
  if (parent.empty() || fs::exists(parent, problem)) return;
  make_parents(parent);
  if (fs::create_directory(parent, problem)) sync_name(parent);
}

}  // namespace

std::string why_unwritable(const base::Path& folder) {
  for (const base::Path& path : {folder, folder / Catalogue::lock_name, folder / Catalogue::file_name}) {
    if (::faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) == 0 || errno == ENOENT) continue;
    return (path == folder ? "" : path.filename().string() + ": ") + std::strerror(errno);
  }
  return "";
}

void make_private_folder(const base::Path& folder) {
  const auto fail = [](const std::string& wrong) { throw base::Error(base::ErrorCode::io, wrong); };
  struct stat status {};
  for (int attempt = 1;; ++attempt) {
    make_parents(folder);
    if (::mkdir(folder.c_str(), 0700) == 0)
      sync_name(folder);
    else if (errno != EEXIST && errno != ENOENT)
      fail(std::strerror(errno));
    if (::stat(folder.c_str(), &status) == 0) break;
    const int reason = errno;
    std::error_code none;
    if (reason != ENOENT || fs::is_symlink(folder, none)) fail(std::strerror(reason));
    if (attempt == most_makings) throw base::Error(base::ErrorCode::not_found, "it is removed while it is made");
  }
  if (!S_ISDIR(status.st_mode)) fail("not a folder");
  if (status.st_mode & S_IWOTH) fail("every user may write to it");
}

std::pair<int64_t, int64_t> remove_earlier_records(const base::Path& folder) {
  int64_t records = 0, bytes = 0;
  std::error_code problem;
  for (fs::directory_iterator place(folder, problem), end; !problem && place != end; place.increment(problem)) {
    const std::string name = place->path().filename().string();
    if (name.size() != 2 || !is_hexadecimal(name) || !fs::is_directory(place->symlink_status())) continue;
    std::error_code inner;
    std::vector<fs::path> found;
    for (fs::directory_iterator file(place->path(), inner); !inner && file != end; file.increment(inner)) {
      if (is_earlier_record(file->path().filename().string()) && fs::is_regular_file(file->symlink_status()))
        found.push_back(file->path());
    }
    for (const fs::path& file : found) {
      const auto size = static_cast<int64_t>(fs::file_size(file, inner));
      if (!fs::remove(file, inner)) continue;
      ++records;
      bytes += size;
    }
    if (!found.empty()) fs::remove(place->path(), inner);  // where nothing else is in it
  }
  return {records, bytes};
}

}  // namespace cepe::context
