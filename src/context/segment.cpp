#include "context/segment.h"

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <random>

#include "base/error.h"

namespace cepe::context {
namespace {

constexpr std::string_view prefix = "segment-", suffix = ".pages";
constexpr size_t digits_in_name = 16;
constexpr int64_t page_bytes = 4096;  // what a medium loses, it loses in pages
constexpr std::string_view digits = "0123456789abcdef";

int64_t aligned(int64_t size) {
  const auto alignment = static_cast<int64_t>(record_alignment);
  return (size + alignment - 1) / alignment * alignment;
}

std::span<const std::byte> bytes_of_text(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// False where the medium has lost them.
bool can_be_read(base::FileLayer::Reading& segment, int64_t place, std::span<std::byte> bytes) try {
  return segment.read(place, bytes) == bytes.size();
} catch (const base::Error& error) {
  if (error.code() != base::ErrorCode::corrupt) throw;
  return false;
}

}  // namespace

bool is_segment_name(std::string_view name) {
  if (name.size() != prefix.size() + digits_in_name + suffix.size()) return false;
  return name.starts_with(prefix) && name.ends_with(suffix) &&
         name.substr(prefix.size(), digits_in_name).find_first_not_of(digits) == std::string_view::npos;
}

std::string new_segment_name() {
  std::random_device source;
  std::string name(prefix);
  for (size_t i = 0; i < digits_in_name; ++i) name += digits[source() % 16];
  return name += suffix;
}

std::vector<std::string> list_segments(base::FileLayer& files, const base::Path& folder) {
  std::vector<std::string> names = files.list(folder);
  std::erase_if(names, [](const std::string& name) { return !is_segment_name(name); });
  return names;
}

SegmentWriter::SegmentWriter(base::FileLayer& files, base::Path folder, int64_t segment_bytes)
    : files_(&files), folder_(std::move(folder)), segment_bytes_(segment_bytes) {}

bool SegmentWriter::go_on_in(const std::string& name, int64_t bytes) {
  auto file = files_->grow(folder_ / name, false);
  if (!file) return false;
  // What a killed process left behind its last record stays there: the next one begins at a multiple again.
  const int64_t size = file->size();
  if (aligned(size) + bytes > segment_bytes_) return false;
  if (size % static_cast<int64_t>(record_alignment) != 0) {
    file->append(std::vector<std::byte>(static_cast<size_t>(aligned(size) - size)));
  }
  current_ = std::make_shared<Open>(Open{name, std::move(file), aligned(size), aligned(size)});
  return true;
}

void SegmentWriter::make_room(int64_t bytes) {
  if (current_ && current_->size + bytes <= segment_bytes_) return;
  current_.reset();
  while (!offered_.empty()) {
    const std::string name = offered_.back();
    offered_.pop_back();
    const bool ours =
        std::any_of(touched_.begin(), touched_.end(), [&](const auto& open) { return open->name == name; });
    if (!ours && go_on_in(name, bytes)) return;
  }
  while (!current_) {
    const std::string name = new_segment_name();
    auto file = files_->grow(folder_ / name, true);
    if (file) current_ = std::make_shared<Open>(Open{name, std::move(file), 0, 0});
  }
  new_names_ = true;
}

RecordPlace SegmentWriter::append(const ChunkKey& key, const RecordShape& shape, std::span<const std::byte> values,
                                  std::string_view source) {
  const auto bytes = static_cast<int64_t>(record_bytes(shape, source));
  make_room(bytes);
  if (touched_.empty() || touched_.back() != current_) touched_.push_back(current_);
  RecordPlace place{current_->name, current_->size, bytes};
  const RecordHead head = make_head(key, shape, values, source);
  current_->file->append(head);
  current_->file->append(values);
  current_->file->append(bytes_of_text(make_tail(shape, source)));
  current_->size += bytes;
  return place;
}

void SegmentWriter::sync() {
  for (const auto& open : touched_) open->file->sync();
  if (new_names_) files_->sync_folder(folder_);
  new_names_ = false;
}

void SegmentWriter::take_back() {
  for (const auto& open : touched_) {
    try {
      open->file->cut(open->start);
      if (open->start == 0) files_->remove(folder_ / open->name);
    } catch (const base::Error&) {  // bytes that nobody knows of: the next compaction drops them
    }
  }
  touched_.clear();
  current_.reset();
}

bool SegmentWriter::all_there() const {
  return std::all_of(touched_.begin(), touched_.end(), [](const auto& open) { return open->file->has_name(); });
}

std::vector<std::pair<std::string, int64_t>> SegmentWriter::sizes() const {
  std::vector<std::pair<std::string, int64_t>> sizes;
  for (const auto& open : touched_) sizes.emplace_back(open->name, open->size);
  return sizes;
}

void SegmentWriter::forget() {
  for (const auto& open : touched_) open->start = open->size;
  touched_.clear();
}

void SegmentWriter::close() {
  touched_.clear();
  current_.reset();
}

namespace {

base::FileLayer::Content copy_of(base::FileLayer::Reading& segment, int64_t begin, size_t bytes) {
  constexpr std::align_val_t alignment{record_alignment};
  const std::shared_ptr<std::byte> memory(static_cast<std::byte*>(::operator new(bytes, alignment)),
                                          [](std::byte* held) { ::operator delete(held, alignment); });
  return {memory, {memory.get(), segment.read(begin, {memory.get(), bytes})}};
}

// `values_at` gives the values that begin at that place, or fewer bytes where they end too early.
std::string look_at_record(base::FileLayer::Reading& segment, const RecordPlace& place, const ChunkKey& key,
                           const RecordShape& shape, std::string& source,
                           const std::function<std::span<const std::byte>(int64_t)>& values_at) try {
  RecordHead head;
  if (place.offset < 0 || segment.read(place.offset, head) < head.size()) return "ends too early";
  const std::optional<RecordInfo> info = read_head(head);
  if (!info) return "no record, or its head is damaged";
  if (std::string wrong = difference(*info, key, shape); !wrong.empty()) return wrong;
  const int64_t begin = place.offset + static_cast<int64_t>(record_head_bytes);
  const auto end = begin + static_cast<int64_t>(shape.payload_bytes());
  source.assign(info->source_bytes, '\0');
  const std::span<const std::byte> values = values_at(begin);
  if (values.size() < shape.payload_bytes() ||
      segment.read(end, std::as_writable_bytes(std::span(source))) < source.size())
    return "ends too early";
  return agrees(*info, values, source) ? "" : "its bytes contradict its checksum";
} catch (const base::Error& error) {
  if (error.code() != base::ErrorCode::corrupt) throw;
  return error.what();
}

}  // namespace

std::string read_record(base::FileLayer::Reading& segment, const RecordPlace& place, const ChunkKey& key,
                        const RecordShape& shape, std::span<std::byte> values, std::string& source) {
  return look_at_record(segment, place, key, shape, source,
                        [&](int64_t begin) { return values.first(segment.read(begin, values)); });
}

std::string map_record(base::FileLayer::Reading& segment, const RecordPlace& place, const ChunkKey& key,
                       const RecordShape& shape, base::FileLayer::Content& values) {
  std::string source;
  return look_at_record(segment, place, key, shape, source, [&](int64_t begin) {
    values = segment.map(begin, shape.payload_bytes());
    if (values.bytes.empty()) values = copy_of(segment, begin, shape.payload_bytes());
    return values.bytes;
  });
}

std::string read_record(base::FileLayer::Reading& segment, const RecordPlace& place, const ChunkKey& key,
                        const RecordShape& shape, std::span<std::byte> values) {
  std::string source;
  return read_record(segment, place, key, shape, values, source);
}

void scan_segment(base::FileLayer::Reading& segment, const std::function<bool(const RecordInfo&, int64_t)>& visitor) {
  const int64_t size = segment.size();
  for (int64_t place = 0; place + static_cast<int64_t>(record_head_bytes) <= size;) {
    RecordHead head;
    if (!can_be_read(segment, place, head)) {
      place = (place / page_bytes + 1) * page_bytes;
      continue;
    }
    const std::optional<RecordInfo> info = read_head(head);
    const auto length = static_cast<int64_t>(info ? info->record_bytes() : 0);
    const bool whole = info && place + length <= size && visitor(*info, place);
    place += whole ? length : static_cast<int64_t>(record_alignment);
  }
}

}  // namespace cepe::context
