#include "cli/documents.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/standard_streams.h"
#include "data/documents.h"

namespace cepe::cli {
namespace {

using base::Error;
using base::ErrorCode;
using base::Path;
namespace filesystem = std::filesystem;

constexpr std::array left_out_folders = {"node_modules", "build", "target",      "dist",
                                         "out",          "venv",  "__pycache__", "CMakeFiles"};
constexpr std::array left_out_extensions = {
    ".png", ".jpg", ".jpeg", ".gif", ".webp", ".ico",         ".bmp", ".tif",   ".tiff", ".mp3",  ".wav",
    ".ogg", ".mp4", ".mkv",  ".mov", ".avi",  ".zip",         ".gz",  ".xz",    ".bz2",  ".zst",  ".tar",
    ".7z",  ".o",   ".a",    ".so",  ".exe",  ".dll",         ".pyc", ".class", ".jar",  ".wasm", ".gguf",
    ".bin", ".pt",  ".pth",  ".npy", ".npz",  ".safetensors", ".ttf", ".otf",   ".woff", ".woff2"};

bool is_read_compressed(const std::string& name) { return name.ends_with(".jsonl.gz") || name.ends_with(".jsonl.zst"); }

bool is_left_out(const filesystem::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  std::error_code none;
  if (name.starts_with('.') || entry.is_symlink(none)) return true;
  if (entry.is_directory(none))
    return std::find(left_out_folders.begin(), left_out_folders.end(), name) != left_out_folders.end();
  const std::string extension = entry.path().extension().string();
  const bool binary =
      std::find(left_out_extensions.begin(), left_out_extensions.end(), extension) != left_out_extensions.end();
  return !entry.is_regular_file(none) || (binary && !is_read_compressed(name));
}

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

void check_can_be_read(const std::string& argument) {
  std::error_code none;
  const filesystem::file_status status = filesystem::status(argument, none);
  if (filesystem::is_regular_file(status) || filesystem::is_directory(status)) return;
  if (filesystem::exists(status)) {  // <(pdftotext book.pdf -), say
    throw Error(ErrorCode::invalid_argument,
                "document " + argument + ": not a regular file; of a pipe, give - and put the text on standard input");
  }
  if (is_number(argument)) {
    throw Error(ErrorCode::invalid_argument, "document " + argument +
                                                 ": expected a file or folder; a number is not a file. Sizes are given "
                                                 "to generate and chat, the decoder's window by --decoder-tokens");
  }
  throw Error(ErrorCode::not_found, "document " + argument + ": there is no such file or folder");
}

void read_file_into(const Path& path, std::vector<Document>& documents) {
  data::DocumentReader reader({path});
  while (auto document = reader.next()) documents.push_back({document->id, std::move(document->text)});
}

void read_folder_into(const Path& folder, std::vector<Document>& documents) {
  const size_t before = documents.size();
  for (const Path& file : list_folder(folder)) {
    base::throw_if_interrupted();
    const size_t so_far = documents.size();
    try {
      read_file_into(file, documents);
    } catch (const Error& error) {
      documents.resize(so_far);  // nothing of a file that is bad further down
      base::warn(std::string("passed over: ") + error.what());
    }
  }
  if (documents.size() == before)
    throw Error(ErrorCode::invalid_argument, "document " + folder.string() + ": none of its files can be read as text");
}

Document read_input() {
  announce_waiting("reading the document from standard input");
  return {"-", data::plain_text(read_standard_input(), "document - (standard input)")};
}

}  // namespace

std::vector<Path> list_folder(const Path& folder) {
  std::error_code problem;
  std::vector<Path> files;
  auto entry =
      filesystem::recursive_directory_iterator(folder, filesystem::directory_options::skip_permission_denied, problem);
  for (; !problem && entry != filesystem::recursive_directory_iterator(); entry.increment(problem)) {
    if (is_left_out(*entry)) {
      entry.disable_recursion_pending();
    } else if (std::error_code none; entry->is_regular_file(none)) {
      files.push_back(entry->path());
    }
  }
  if (problem) throw Error(ErrorCode::io, folder.string() + ": cannot list: " + problem.message());
  if (files.empty())
    throw Error(ErrorCode::invalid_argument, "document " + folder.string() + ": a folder without text files");
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<Document> read_documents(const std::vector<std::string>& arguments) {
  if (std::count(arguments.begin(), arguments.end(), "-") > 1)
    throw Error(ErrorCode::invalid_argument, "document -: standard input can be read only once");
  for (const std::string& argument : arguments) {
    if (argument != "-") check_can_be_read(argument);
  }
  std::vector<Document> documents;
  for (const std::string& argument : arguments) {
    const size_t before = documents.size();
    std::error_code none;
    if (argument == "-") {
      documents.push_back(read_input());
    } else if (filesystem::is_directory(argument, none)) {
      read_folder_into(argument, documents);
    } else {
      read_file_into(argument, documents);
    }
    const auto is_empty = [](const Document& document) { return document.text.empty(); };
    if (std::all_of(documents.begin() + static_cast<ptrdiff_t>(before), documents.end(), is_empty))
      base::warn("document " + argument + ": it holds no text");
  }
  return documents;
}

std::vector<std::string> names_of(const std::vector<Document>& documents) {
  std::vector<std::string> names;
  names.reserve(documents.size());
  for (const Document& document : documents) names.push_back(document.name);
  return names;
}

}  // namespace cepe::cli
