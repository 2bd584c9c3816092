// What --document names, as texts: files, folders, standard input.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"

namespace cepe::cli {

struct Document {
  std::string name;  // for messages and results: a path, or "-"
  std::string text;
};

std::vector<std::string> names_of(const std::vector<Document>& documents);

// The files of a folder that may hold text, sorted by path. Left out: what is hidden, what links elsewhere, folders of
// things made or fetched by tools (node_modules, build, target, dist, out, venv, __pycache__, CMakeFiles), files whose
// extension says that they are images, sound, archives, programs, weights.
// Errors: io where the folder cannot be listed; invalid_argument where nothing is left.
std::vector<base::Path> list_folder(const base::Path& folder);

// All documents in the order given, "-" being standard input. Within a folder a file that holds no plain text is named
// in a warning and passed over; one given by itself is an error with a hint.
// Errors: not_found (a number is not a file), invalid_argument, corrupt, io; base::Interrupted.
std::vector<Document> read_documents(const std::vector<std::string>& arguments);

}  // namespace cepe::cli
