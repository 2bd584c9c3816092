// Folders that a command is told to write.
#pragma once

#include <string>
#include <vector>

#include "base/files.h"

namespace cepe::cli {

// Errors: invalid_argument naming `option` where it was given as ''.
void check_is_named(const base::Path& folder, const std::string& option);

// A folder that is not there yet or is empty, or any folder with `force`. Made, with the folders above it. Without
// `keep` it is afterwards as it was found, not there or empty: a command that is refused, or whose disk is full, leaves
// nothing that the next attempt would need --force for. What a folder held before is never removed.
// Errors: invalid_argument naming `option`, io.
class OutputFolder {
 public:
  OutputFolder(const base::Path& folder, bool force, const std::string& option);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  void keep();  // what was written is whole

 private:
  base::Path folder_;             // empty: nothing of it is removed
  std::vector<base::Path> made_;  // it and those above it that were not there, the deepest first
};

// Where the folder itself is the input, what was read would be replaced. Errors: invalid_argument.
void check_is_another(const base::Path& output, const base::Path& input);

}  // namespace cepe::cli
