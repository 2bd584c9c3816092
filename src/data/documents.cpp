#include "data/documents.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace cepe::data {
namespace {

using base::Error;
using base::ErrorCode;
namespace filesystem = std::filesystem;

bool is_hidden(const base::Path& path) { return path.filename().string().starts_with('.'); }

std::string lower_case(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char byte) { return byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte + 32) : byte; });
  return lower;
}

bool is_json_lines(const base::Path& path) {
  const std::string name = lower_case(path.filename().string());
  return name.ends_with(".jsonl") || name.ends_with(".jsonl.gz") || name.ends_with(".jsonl.zst");
}

// Where the text stops being UTF-8; its size where it never does.
size_t valid_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    utf8proc_int32_t point = 0;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                         static_cast<utf8proc_ssize_t>(std::min<size_t>(4, text.size() - at)), &point);
    if (length <= 0) break;
    at += static_cast<size_t>(length);
  }
  return at;
}

std::string id_of(const base::Json& json, const std::string& where) {
  if (json["id"].is_string()) return json["id"].get<std::string>();
  return std::to_string(base::json_integer(json, "id", where));
}

}  // namespace

std::vector<base::Path> list_document_files(const base::Path& path) {
  std::error_code problem;
  if (!filesystem::exists(path, problem)) {
    throw Error(ErrorCode::not_found, path.string() + ": there is no such file or folder");
  }
  if (!filesystem::is_directory(path, problem)) return {path};
  std::vector<base::Path> files;
  auto entry = filesystem::recursive_directory_iterator(path, problem);
  for (; !problem && entry != filesystem::recursive_directory_iterator(); entry.increment(problem)) {
    if (is_hidden(entry->path())) {
      std::error_code none;
      if (entry->is_directory(none)) entry.disable_recursion_pending();
    } else if (entry->is_regular_file(problem)) {
      files.push_back(entry->path());
    }
  }
  if (problem) throw Error(ErrorCode::io, path.string() + ": cannot list: " + problem.message());
  if (files.empty()) throw Error(ErrorCode::invalid_argument, path.string() + ": a folder without files to read");
  std::sort(files.begin(), files.end());
  return files;
}

std::string refusal_of(std::string_view beginning) {
  const auto starts = [&](std::string_view magic) { return beginning.starts_with(magic); };
  if (starts("%PDF-")) return "a PDF; extract its text first (pdftotext)";
  if (starts("PK\x03\x04")) return "a zip archive or an office document; extract its text first";
  if (starts("\x1f\x8b") || starts("\x28\xb5\x2f\xfd")) return "compressed; only .jsonl.gz and .jsonl.zst are read so";
  if (starts("{\\rtf")) return "RTF; extract its text first (unrtf --text)";
  if (starts("%!PS") || starts("\x04%!PS")) return "PostScript; extract its text first (ps2ascii)";
  // Before UTF-16, whose mark UTF-32's begins with.
  if (starts({"\xff\xfe\0\0", 4}) || starts({"\0\0\xfe\xff", 4})) return "UTF-32; convert it to UTF-8 first (iconv)";
  if (starts("\xff\xfe") || starts("\xfe\xff")) return "UTF-16; convert it to UTF-8 first (iconv)";
  const size_t first = beginning.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  const std::string text = first == std::string_view::npos ? "" : lower_case(beginning.substr(first, 64));
  if (text.starts_with("<!doctype html") || text.starts_with("<html")) return "HTML; extract its text first";
  if (beginning.find('\0') != std::string_view::npos) return "binary; plain text in UTF-8 is expected";
  return "";
}

DocumentReader::DocumentReader(std::vector<base::Path> files, const DocumentOptions& options)
    : files_(std::move(files)), options_(options) {}

std::optional<Document> DocumentReader::next() {
  while (true) {
    if (lines_) {
      if (auto document = next_line()) return document;
      lines_.reset();
      ++file_;
    }
    if (file_ == files_.size()) return std::nullopt;
    if (is_json_lines(files_[file_])) {
      lines_.emplace(open_source(files_[file_]), options_.max_line_bytes);
      continue;
    }
    const base::Path& path = files_[file_++];
    try {
      return read_text(path);
    } catch (const Error& error) {
      skip(error);
    }
  }
}

std::optional<Document> DocumentReader::next_line() {
  std::string line;
  while (true) {
    const LineReader::Status status = lines_->next(line);
    if (status == LineReader::Status::end) return std::nullopt;
    if (status == LineReader::Status::line && line.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      if (status == LineReader::Status::too_long) {
        throw Error(ErrorCode::corrupt, files_[file_].string() + ", line " + std::to_string(lines_->number()) +
                                            ": longer than " + std::to_string(options_.max_line_bytes) + " bytes");
      }
      return parse_line(line);
    } catch (const Error& error) {
      skip(error);
    }
  }
}

Document DocumentReader::parse_line(const std::string& line) const {
  const std::string source = files_[file_].string(), number = std::to_string(lines_->number());
  const std::string where = source + ", line " + number;
  base::Json json = base::parse_json(line, where);
  if (!json.is_object()) throw Error(ErrorCode::corrupt, where + ": expected an object with a field 'text'");
  Document document;
  document.text = base::json_string(json, "text", where);
  document.id = base::json_has(json, "id") ? id_of(json, where) : source + ":" + number;
  document.source = source;
  document.line = lines_->number();
  json.erase("text");
  json.erase("id");
  document.fields = std::move(json);
  return document;
}

std::string plain_text(std::string bytes, const std::string& name) {
  const std::string refusal = refusal_of(std::string_view(bytes).substr(0, 4096));
  if (!refusal.empty()) throw Error(ErrorCode::invalid_argument, name + ": " + refusal);
  return utf8_text(std::move(bytes), name);
}

std::string utf8_text(std::string bytes, const std::string& name) {
  const size_t valid = valid_prefix(bytes);
  if (valid < bytes.size()) {
    const auto line = std::count(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(valid), '\n') + 1;
    throw Error(ErrorCode::corrupt, name + ", line " + std::to_string(line) + ": not UTF-8; convert it first (iconv)");
  }
  if (bytes.starts_with("\xef\xbb\xbf")) bytes.erase(0, 3);
  return bytes;
}

Document DocumentReader::read_text(const base::Path& path) const {
  const std::string name = path.string();
  Document document;
  document.text = plain_text(base::read_file(path, options_.max_file_bytes), name);
  document.id = name;
  document.source = name;
  document.fields = base::Json::object();
  return document;
}

void DocumentReader::skip(const Error& error) {
  if (skipped_ >= options_.max_skipped || !error.is_users()) throw error;
  ++skipped_;
  base::warn(std::string("passed over: ") + error.what());
}

}  // namespace cepe::data
