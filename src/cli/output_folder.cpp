#include "cli/output_folder.h"

#include <unistd.h>

#include "base/error.h"

namespace cepe::cli {

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
    if (!force && !std::filesystem::is_empty(folder, problem))
      throw Error(ErrorCode::invalid_argument, what + ": this folder is not empty; choose another or pass --force");
    return;
  }
  std::filesystem::create_directories(folder, problem);
  if (problem) throw Error(ErrorCode::io, what + ": cannot be made: " + problem.message());
  made_ = folder;
}

OutputFolder::~OutputFolder() {
  if (!made_.empty()) ::rmdir(made_.c_str());  // fails where it is not empty
}

void check_is_another(const base::Path& output, const base::Path& input) {
  std::error_code none;
  if (std::filesystem::equivalent(output, input, none)) {
    throw base::Error(base::ErrorCode::invalid_argument,
                      "--output " + output.string() + ": this is what is read; choose another folder");
  }
}

}  // namespace cepe::cli
