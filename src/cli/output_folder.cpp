#include "cli/output_folder.h"

#include <unistd.h>

#include "base/error.h"

namespace cepe::cli {
namespace {

void remove_empty(const std::vector<base::Path>& folders) {
  for (const base::Path& folder : folders) ::rmdir(folder.c_str());  // fails where it is not empty
}

void remove_content(const base::Path& folder) {
  std::error_code problem;
  std::vector<base::Path> entries;
  for (std::filesystem::directory_iterator at(folder, problem), end; !problem && at != end; at.increment(problem))
    entries.push_back(at->path());
  for (const base::Path& entry : entries) std::filesystem::remove_all(entry, problem);
}

}  // namespace

void check_is_named(const base::Path& folder, const std::string& option) {
  if (folder.empty()) throw base::Error(base::ErrorCode::invalid_argument, option + ": expected the name of a folder");
}

OutputFolder::OutputFolder(const base::Path& folder, bool force, const std::string& option) {
  using base::Error;
  using base::ErrorCode;
  check_is_named(folder, option);
  const std::string what = option + " " + folder.string();
  std::error_code problem;
  if (base::is_there(folder)) {
    if (!std::filesystem::is_directory(folder, problem))
      throw Error(ErrorCode::invalid_argument, what + ": this is a file; expected a folder");
    const bool is_empty = std::filesystem::is_empty(folder, problem);
    if (!force && !is_empty)
      throw Error(ErrorCode::invalid_argument, what + ": this folder is not empty; choose another or pass --force");
    if (is_empty && !problem) folder_ = folder;
    return;
  }
  for (base::Path above = folder; !above.empty() && !std::filesystem::exists(above, problem);
       above = above.parent_path())
    made_.push_back(above);
  std::filesystem::create_directories(folder, problem);
  if (problem) {
    remove_empty(made_);
    throw Error(ErrorCode::io, what + ": cannot be made: " + problem.message());
  }
  folder_ = folder;
}

OutputFolder::~OutputFolder() {
  if (folder_.empty()) return;
  remove_content(folder_);
  remove_empty(made_);
}

void OutputFolder::keep() { folder_.clear(); }

void check_is_another(const base::Path& output, const base::Path& input) {
  std::error_code none;
  if (std::filesystem::equivalent(output, input, none)) {
    throw base::Error(base::ErrorCode::invalid_argument,
                      "--output " + output.string() + ": this is what is read; choose another folder");
  }
}

}  // namespace cepe::cli
