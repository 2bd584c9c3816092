// Files: memory-mapped reading, whole-file reading with a limit, replacing a file so that a crash at any
// moment leaves either the old or the new one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace cepe::base {

using Path = std::filesystem::path;

// The first `bytes` bytes of an open file in memory, read only; the descriptor may be closed. Without bytes where the
// system maps none, and errno says why. Whoever cuts the file makes reading them SIGBUS. Move only.
class Mapping {
 public:
  Mapping() = default;
  Mapping(int descriptor, size_t bytes);
  ~Mapping();
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

// A read-only mapping of a whole regular file; an empty file maps to an empty span. Move only.
// Errors: not_found, io (with the operating system's reason), invalid_argument for what is no regular file.
class MappedFile {
 public:
  explicit MappedFile(const Path& path);

  std::span<const std::byte> bytes() const { return mapping_.bytes(); }
  const Path& path() const { return path_; }

 private:
  Path path_;
  Mapping mapping_;
};

// The whole file as bytes. Errors as MappedFile; invalid_argument where it is larger than max_bytes.
std::string read_file(const Path& path, size_t max_bytes = size_t{1} << 31);

// Whether anything is at `path`. A symbolic link to nothing is an error and not absence: a folder of links whose
// targets were removed or left behind, as in Hugging Face's cache, must not pass for one that never had the file.
// Errors: not_found (names the link and what it points to), io (no permission to look, with the system's reason).
bool is_there(const Path& path);
// The same for what is opened next, which says what is wrong: true where it cannot be looked at.
bool may_be_there(const Path& path);

// What stands where a file is wanted is none. Errors: invalid_argument, always.
[[noreturn]] void refuse_irregular(const Path& path, bool is_folder);

// Git leaves a few lines of text in place of a large file where Git LFS was not there to fetch it.
// Errors: invalid_argument where `content` is such a pointer; says how to fetch what it points to.
void refuse_lfs_pointer(std::string_view content, const Path& path);

// Replaces `path` by what `write` puts out: written beside it (its name, a point and six digits, by which others know
// what a killed process left), synced, renamed, the folder synced. The new file has the permissions of the old one. A
// symbolic link is itself replaced: what it points to may be others' too.
// On any error the old file stands and the temporary one is gone. Errors: io; not_found; invalid_argument where `path`
// is a folder, device or pipe.
class FileWriter {
 public:
  explicit FileWriter(const Path& path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  // Makes it the file at `path`. Without it the destructor throws the written bytes away.
  void commit();

 private:
  Path path_;
  Path temporary_;
  int descriptor_ = -1;
};
void replace_file(const Path& path, std::string_view content);

// $HOME, else the folder that the system's list of users names; empty where there is neither.
Path home_folder();

// $CEPE_CACHE_DIR, else $XDG_CACHE_HOME/cepe, else ~/.cache/cepe, without a home /tmp/cepe-cache. Not created.
// scripts/environment says the same.
Path default_cache_folder();

}  // namespace cepe::base
