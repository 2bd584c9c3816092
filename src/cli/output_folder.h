// Folders that a command is told to write.
#pragma once

#include <string>

#include "base/files.h"

namespace cepe::cli {

// Errors: invalid_argument naming `option` where it was given as ''.
void check_is_named(const base::Path& folder, const std::string& option);
// A folder that is not there yet or is empty, or any folder with `force`. Made. Errors: invalid_argument naming
// `option`, io.
void check_output_folder(const base::Path& folder, bool force, const std::string& option);
// Where the folder itself is the input, what was read would be replaced. Errors: invalid_argument.
void check_is_another(const base::Path& output, const base::Path& input);

}  // namespace cepe::cli
