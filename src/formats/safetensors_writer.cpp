#include <algorithm>
#include <cstdio>
#include <numeric>
#include <optional>
#include <set>
#include <unordered_set>

#include "base/interrupt.h"
#include "formats/byte_reader.h"
#include "formats/checkpoint.h"
#include "formats/dtype.h"
#include "formats/safetensors.h"

namespace cepe::formats {
namespace {

constexpr size_t max_shards = 99999;  // five digits in their names

[[noreturn]] void refuse(const std::string& what) {
  throw base::Error(base::ErrorCode::invalid_argument, "writing safetensors: " + what);
}

// Names and types; the bytes are looked at by check_bytes.
void check_tensors(std::span<const NamedTensor> tensors) {
  std::unordered_set<std::string_view> names;
  for (const auto& [name, view] : tensors) {
    const std::string what = "tensor " + in_quotes(name);
    if (!is_utf8(name)) refuse(what + ": the name is not UTF-8");
    if (name == "__metadata__") refuse(what + ": the name is reserved");
    if (!names.insert(name).second) refuse(what + " occurs twice");
    if (!safetensors_name(view.type)) {
      throw base::Error(base::ErrorCode::unsupported, "writing safetensors: " + what + " has the block type " +
                                                          std::string(name_of(view.type)) +
                                                          ", which safetensors lacks; convert it first");
    }
    if (!checked_bytes(view.type, view.shape)) {
      refuse(what + ": no tensor can have the shape " + shape_text(view.shape));
    }
  }
}

uint64_t bytes_of(const TensorView& view) {
  return static_cast<uint64_t>(checked_bytes(view.type, view.shape).value());
}

void check_bytes(std::span<const NamedTensor> tensors) {
  for (const auto& [name, view] : tensors) {
    if (bytes_of(view) == view.bytes.size()) continue;
    refuse("tensor " + in_quotes(name) + ": " + std::to_string(view.bytes.size()) + " bytes do not fit " +
           std::string(name_of(view.type)) + " " + shape_text(view.shape));
  }
}

void check_written_metadata(const base::Json& metadata) {
  if (metadata.is_null()) return;
  if (!metadata.is_object()) refuse("metadata must be an object of strings");
  for (const auto& [key, value] : metadata.items()) {
    const bool fits = value.is_string() && is_utf8(key) && is_utf8(value.get_ref<const std::string&>());
    if (!fits) refuse("metadata " + in_quotes(key) + " must be UTF-8 text");
  }
}

using Shard = std::span<const NamedTensor>;

// Runs of tensors of at most `limit` bytes; a tensor that is larger stands alone.
std::vector<Shard> split(std::span<const NamedTensor> tensors, int64_t limit) {
  std::vector<Shard> shards;
  size_t begin = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t size = tensors[i].view.bytes.size();
    if (i > begin && (size > static_cast<uint64_t>(limit) || bytes > static_cast<uint64_t>(limit) - size)) {
      shards.push_back(tensors.subspan(begin, i - begin));
      begin = i;
      bytes = 0;
    }
    bytes += size;
  }
  shards.push_back(tensors.subspan(begin));
  return shards;
}

// The order of the data: wider elements first, so that each starts at a multiple of its own size.
std::vector<size_t> data_order(Shard shard) {
  std::vector<size_t> order(shard.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return block_bytes(shard[a].view.type) > block_bytes(shard[b].view.type);
  });
  return order;
}

// Built by hand, since Json would sort the names; padded with spaces to a multiple of 8.
std::string header_of(Shard shard, const std::vector<size_t>& order, const base::Json& metadata) {
  std::vector<uint64_t> offsets(shard.size());
  uint64_t offset = 0;
  for (const size_t i : order) {
    offsets[i] = offset;
    if (__builtin_add_overflow(offset, bytes_of(shard[i].view), &offset)) refuse("more bytes than a file can have");
  }
  std::string header = "{";
  if (!metadata.is_null()) header += "\"__metadata__\":" + metadata.dump();
  for (size_t i = 0; i < shard.size(); ++i) {
    const TensorView& view = shard[i].view;
    const base::Json entry{{"dtype", *safetensors_name(view.type)},
                           {"shape", view.shape},
                           {"data_offsets", {offsets[i], offsets[i] + bytes_of(view)}}};
    header += (header.size() > 1 ? "," : "") + base::Json(shard[i].name).dump() + ":" + entry.dump();
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > max_safetensors_header) refuse("a header of " + std::to_string(header.size()) + " bytes");
  return header;
}

SafetensorsPlan plan_of(Shard shard, const base::Json& metadata) {
  SafetensorsPlan plan{{}, data_order(shard)};
  const std::string header = header_of(shard, plan.order, metadata);
  const uint64_t size = header.size();
  plan.head.assign(reinterpret_cast<const char*>(&size), sizeof(size));
  plan.head += header;
  return plan;
}

void write_shard(base::FileWriter& writer, Shard shard, const base::Json& metadata) {
  const SafetensorsPlan plan = plan_of(shard, metadata);
  writer.write(plan.head);
  for (const size_t i : plan.order) {
    base::throw_if_interrupted();
    writer.write(shard[i].view.bytes);
  }
}

std::string shard_name(const std::string& stem, size_t number, size_t count) {
  char suffix[48];
  std::snprintf(suffix, sizeof(suffix), "-%05zu-of-%05zu.safetensors", number, count);
  return stem + suffix;
}

bool is_shard_of(const std::string& stem, const std::string& file) {
  static constexpr std::string_view pattern = "-#####-of-#####.safetensors";
  if (file.size() != stem.size() + pattern.size() || !file.starts_with(stem)) return false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char found = file[stem.size() + i];
    if (pattern[i] == '#' ? found < '0' || found > '9' : found != pattern[i]) return false;
  }
  return true;
}

// What an earlier save under this stem left: it would be found before, or read together with, what is written now.
void remove_stale(const base::Path& folder, const std::string& stem, const std::set<std::string>& written) {
  std::vector<base::Path> stale;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string();
    const bool ours =
        file == stem + ".safetensors" || file == stem + ".safetensors.index.json" || is_shard_of(stem, file);
    if (ours && !written.contains(file)) stale.push_back(entry.path());
  }
  for (const auto& path : stale) std::filesystem::remove(path);
}

std::string index_of(const std::vector<Shard>& shards, const std::vector<std::string>& files) {
  base::Json map = base::Json::object();
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    for (const NamedTensor& tensor : shards[i]) {
      map[tensor.name] = files[i];
      total += tensor.view.bytes.size();
    }
  }
  const base::Json index{{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}};
  return index.dump(2) + "\n";
}

}  // namespace

SafetensorsPlan plan_safetensors(std::span<const NamedTensor> tensors, const base::Json& metadata) {
  check_tensors(tensors);
  check_written_metadata(metadata);
  return plan_of(tensors, metadata);
}

void write_safetensors(const base::Path& folder, const std::string& stem, std::span<const NamedTensor> tensors,
                       const base::Json& metadata, int64_t max_shard_bytes) {
  if (max_shard_bytes < 1) refuse("max_shard_bytes must be 1 or more, found " + std::to_string(max_shard_bytes));
  if (stem.empty() || stem.find('/') != stem.npos) refuse("no file name can start with " + in_quotes(stem));
  check_tensors(tensors);
  check_bytes(tensors);
  check_written_metadata(metadata);
  const auto shards = split(tensors, max_shard_bytes);
  if (shards.size() > max_shards) refuse(std::to_string(shards.size()) + " shards; at most 99999 can be numbered");

  std::vector<std::string> files;
  for (size_t i = 0; i < shards.size(); ++i) {
    files.push_back(shards.size() == 1 ? stem + ".safetensors" : shard_name(stem, i + 1, shards.size()));
  }
  // All are complete on disk before the first takes its name, the index last.
  std::vector<std::unique_ptr<base::FileWriter>> writers;
  for (size_t i = 0; i < shards.size(); ++i) {
    writers.push_back(std::make_unique<base::FileWriter>(folder / files[i]));
    write_shard(*writers.back(), shards[i], metadata);
  }
  for (auto& writer : writers) writer->commit();
  std::set<std::string> written(files.begin(), files.end());
  if (shards.size() > 1) {
    const std::string index = stem + ".safetensors.index.json";
    base::replace_file(folder / index, index_of(shards, files));
    written.insert(index);
  }
  remove_stale(folder, stem, written);
}

}  // namespace cepe::formats
