// Documents of a corpus, one after the other in bounded memory: JSON Lines ({"id", "text", ...}) in .jsonl,
// .jsonl.zst and .jsonl.gz, plain text files, and folders of all of these.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "data/line_reader.h"

namespace cepe::data {

struct Document {
  std::string id;      // the field "id" (text or integer), else "file:line", else the file's path
  std::string text;    // UTF-8
  std::string source;  // path of the file
  int64_t line = 0;    // of a JSON Lines file, from 1; 0 for a text file
  base::Json fields;   // what else the line says, an object; empty for a text file
};

struct DocumentOptions {
  size_t max_line_bytes = size_t{256} << 20;  // of a JSON line
  size_t max_file_bytes = size_t{1} << 30;    // of a text file: it is one document
  int64_t max_skipped = 0;                    // bad lines and files to count and pass over before one is an error
};

// The files below `path` in the order of their names; hidden files and folders are left out. A file is itself.
// Errors: not_found; invalid_argument for a folder without files.
std::vector<base::Path> list_document_files(const base::Path& path);

// Why the beginning of a file shows that it holds no plain text, and what to do; empty where it may be text.
std::string refusal_of(std::string_view beginning);
// What was read from `name`, without a byte order mark. Errors: corrupt where it is not UTF-8, with the line.
std::string utf8_text(std::string bytes, const std::string& name);
// The same of a document. Errors: invalid_argument, too, where it is no plain text.
std::string plain_text(std::string bytes, const std::string& name);

class DocumentReader {
 public:
  explicit DocumentReader(std::vector<base::Path> files, const DocumentOptions& options = {});

  // The next document; none at the end. Blank lines are passed over. Errors: a bad line or file, naming it and its line
  // (corrupt, invalid_argument), once max_skipped is spent; compressed data that is cut short or damaged, always.
  std::optional<Document> next();
  int64_t skipped() const { return skipped_; }

 private:
  std::optional<Document> next_line();
  Document parse_line(const std::string& line) const;
  Document read_text(const base::Path& path) const;
  void skip(const base::Error& error);

  std::vector<base::Path> files_;
  DocumentOptions options_;
  size_t file_ = 0;  // of the lines at hand, or the next to open
  std::optional<LineReader> lines_;
  int64_t skipped_ = 0;
};

}  // namespace cepe::data
