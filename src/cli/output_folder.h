// Folders that a command is told to write.
#pragma once

#include <string>

#include "base/files.h"

namespace cepe::cli {

// Errors: invalid_argument naming `option` where it was given as ''.
void check_is_named(const base::Path& folder, const std::string& option);

// A folder that is not there yet or is empty, or any folder with `force`. Made, and gone again with this where it was
// not there and nothing was written into it: a command that is refused leaves none.
// Errors: invalid_argument naming `option`, io.
class OutputFolder {
 public:
  OutputFolder(const base::Path& folder, bool force, const std::string& option);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

 private:
  base::Path made_;  // empty: it was there
};

// Where the folder itself is the input, what was read would be replaced. Errors: invalid_argument.
void check_is_another(const base::Path& output, const base::Path& input);

}  // namespace cepe::cli
