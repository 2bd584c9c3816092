#include "formats/checkpoint.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "formats/byte_reader.h"
#include "formats/content.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "formats/torch_bin.h"

namespace cepe::formats {
namespace {

constexpr size_t max_index_bytes = size_t{256} << 20;

bool starts_with(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin(), [](char a, std::byte b) {
           return static_cast<unsigned char>(a) == std::to_integer<int>(b);
         });
}

struct Format {
  ParsedFile (*parse)(std::span<const std::byte>, const std::string&);
  bool is_gguf;
};

// The magic number decides; safetensors has none, so there the extension or the header's first byte does.
Format format_of(std::span<const std::byte> bytes, const base::Path& path) {
  const std::string extension = path.extension().string();
  if (starts_with(bytes, "GGUF") || extension == ".gguf") return {parse_gguf, true};
  if (extension == ".safetensors") return {parse_safetensors, false};
  if (starts_with(bytes, "PK") || extension == ".bin" || extension == ".pt" || extension == ".pth") {
    return {parse_torch_bin, false};
  }
  if (bytes.size() > 8 && bytes[8] == std::byte{'{'}) return {parse_safetensors, false};
  fail_unsupported(path.string(), "neither by name nor by content a .safetensors, .gguf or PyTorch .bin file");
}

struct OpenFile {
  base::MappedFile file;
  ParsedFile parsed;
  bool is_gguf;
};

OpenFile open_file(const base::Path& path) {
  base::MappedFile file(path);
  base::refuse_lfs_pointer({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, path);
  const Format format = format_of(file.bytes(), path);
  ParsedFile parsed = format.parse(file.bytes(), path.string());
  return {std::move(file), std::move(parsed), format.is_gguf};
}

void sort_into(Checkpoint::Content& content, std::vector<NamedTensor> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
  for (NamedTensor& tensor : tensors) {
    content.names.push_back(std::move(tensor.name));
    content.views.push_back(std::move(tensor.view));
  }
}

void keep(Checkpoint::Content& content, OpenFile opened) {
  content.files.push_back(std::move(opened.file));
  for (auto& held : opened.parsed.held) content.held.push_back(std::move(held));
}

std::shared_ptr<const Checkpoint::Content> open_single(const base::Path& path) {
  auto content = std::make_shared<Checkpoint::Content>();
  OpenFile opened = open_file(path);
  content->path = path;
  content->metadata = std::move(opened.parsed.metadata);
  content->is_gguf = opened.is_gguf;
  sort_into(*content, std::move(opened.parsed.tensors));
  keep(*content, std::move(opened));
  return content;
}

// An index is data from strangers: it may name files beside it, nothing else.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

// {file: [tensor names]} of an index's weight_map {tensor name: file}.
std::map<std::string, std::vector<std::string>> read_index(const base::Path& path) {
  const std::string where = path.string();
  const base::Json index = base::parse_json(base::read_file(path, max_index_bytes), where);
  if (!index.is_object() || !index.contains("weight_map") || !index.at("weight_map").is_object()) {
    fail_corrupt(where, "field 'weight_map' must be an object of tensor names and files");
  }
  std::map<std::string, std::vector<std::string>> files;
  for (const auto& [name, file] : index.at("weight_map").items()) {
    if (!file.is_string() || !is_plain_file_name(file.get<std::string>())) {
      fail_corrupt(where, "weight_map: the file of " + in_quotes(name) +
                              " must be the name of a file in the same folder, found " +
                              in_quotes(file.dump(-1, ' ', false, base::Json::error_handler_t::replace)));
    }
    files[file.get<std::string>()].push_back(name);
  }
  return files;
}

std::shared_ptr<const Checkpoint::Content> open_sharded(const base::Path& path) {
  auto content = std::make_shared<Checkpoint::Content>();
  content->path = path;
  std::vector<NamedTensor> tensors;
  for (const auto& [file, names] : read_index(path)) {
    OpenFile opened = open_file(path.parent_path() / file);
    std::map<std::string_view, TensorView*> found;
    for (NamedTensor& tensor : opened.parsed.tensors) found[tensor.name] = &tensor.view;
    for (const std::string& name : names) {
      const auto tensor = found.find(name);
      if (tensor == found.end()) {
        fail_corrupt(path.string(), "weight_map places tensor " + in_quotes(name) + " in " + in_quotes(file) +
                                        ", which does not hold it");
      }
      tensors.push_back({name, *tensor->second});
    }
    if (content->metadata.is_null()) content->metadata = std::move(opened.parsed.metadata);
    keep(*content, std::move(opened));
  }
  sort_into(*content, std::move(tensors));
  return content;
}

constexpr std::array<const char*, 6> folder_candidates{"model.safetensors",   "model.safetensors.index.json",
                                                       "adapter.safetensors", "adapter.safetensors.index.json",
                                                       "pytorch_model.bin",   "pytorch_model.bin.index.json"};

base::Path find_in_folder(const base::Path& folder) {
  for (const char* name : folder_candidates) {
    if (base::is_there(folder / name)) return folder / name;
  }
  throw base::Error(base::ErrorCode::not_found,
                    folder.string() +
                        ": no checkpoint in this folder; looked for model.safetensors, adapter.safetensors, "
                        "pytorch_model.bin and the index.json of each");
}

// Letters that two names share at their ends: cheap, and enough to find "layers.1.w" for "layers.l.w".
size_t likeness(std::string_view a, std::string_view b) {
  const size_t shorter = std::min(a.size(), b.size());
  size_t front = 0;
  while (front < shorter && a[front] == b[front]) ++front;
  size_t back = 0;
  while (back < shorter - front && a[a.size() - 1 - back] == b[b.size() - 1 - back]) ++back;
  return front + back;
}

std::string nearest_names(const std::vector<std::string>& names, std::string_view wanted) {
  std::vector<std::pair<size_t, size_t>> ranking;  // likeness, index
  for (size_t i = 0; i < names.size(); ++i) ranking.emplace_back(likeness(names[i], wanted), i);
  const size_t count = std::min<size_t>(3, ranking.size());
  std::partial_sort(ranking.begin(), ranking.begin() + static_cast<std::ptrdiff_t>(count), ranking.end(),
                    [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a < b; });
  std::string text;
  for (size_t i = 0; i < count; ++i) text += (i ? ", " : "") + in_quotes(names[ranking[i].second]);
  return text;
}

}  // namespace

Checkpoint::Checkpoint(std::shared_ptr<const Content> content) : content_(std::move(content)) {}

Checkpoint Checkpoint::open(const base::Path& path) {
  std::error_code none;
  const base::Path file = std::filesystem::is_directory(path, none) ? find_in_folder(path) : path;
  const bool is_index = file.filename().string().ends_with(".index.json");
  return Checkpoint(is_index ? open_sharded(file) : open_single(file));
}

const base::Path& Checkpoint::path() const { return content_->path; }
const std::vector<std::string>& Checkpoint::names() const { return content_->names; }
const base::Json& Checkpoint::metadata() const { return content_->metadata; }
bool Checkpoint::is_gguf() const { return content_->is_gguf; }

bool Checkpoint::contains(std::string_view name) const {
  return std::binary_search(content_->names.begin(), content_->names.end(), name);
}

TensorView Checkpoint::at(std::string_view name) const {
  const auto& names = content_->names;
  const auto found = std::lower_bound(names.begin(), names.end(), name);
  if (found == names.end() || *found != name) {
    throw base::Error(base::ErrorCode::not_found,
                      path().string() + ": no tensor " + in_quotes(name) + " among its " +
                          std::to_string(names.size()) +
                          (names.empty() ? "" : "; the nearest are " + nearest_names(names, name)));
  }
  return content_->views[static_cast<size_t>(found - names.begin())];
}

}  // namespace cepe::formats
