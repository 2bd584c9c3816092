// Segment files: records (record.h) one after another, appended by one process at a time and never changed.
// Tensor-free.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_layer.h"
#include "context/record.h"

namespace cepe::context {

struct RecordPlace {
  std::string segment;  // name of the file
  int64_t offset = 0, length = 0;
};

// Names of segment files: "segment-" and 16 hexadecimal digits, ".pages".
bool is_segment_name(std::string_view name);
std::string new_segment_name();
// Those in a folder, in any order. Errors: io, not_found.
std::vector<std::string> list_segments(base::FileLayer& files, const base::Path& folder);

// Appends records to one segment at a time, goes on in one that has room, and makes a new one where there is none.
class SegmentWriter {
 public:
  SegmentWriter(base::FileLayer& files, base::Path folder, int64_t segment_bytes);

  // Segments to go on in before a new one is made (those that somebody holds are passed over).
  void offer(std::vector<std::string> names) { offered_ = std::move(names); }

  // Errors: io; not_found where the folder is gone.
  RecordPlace append(const ChunkKey& key, const RecordShape& shape, std::span<const std::byte> values,
                     std::string_view source);
  // All appended records are on the medium, and the names of their files. Errors: io.
  void sync();
  // The same records are thrown away, as far as the system lets us, and segments that hold no others; another segment
  // is taken for the next ones.
  void take_back();
  // False where a segment of the records since the last `forget` was removed by somebody.
  bool all_there() const;
  // What was appended so far is acknowledged: sizes of the segments that were written to, by name.
  std::vector<std::pair<std::string, int64_t>> sizes() const;
  void forget();
  // Lets go of the segment, so that anybody may go on in it or compact it.
  void close();
  bool is_open() const { return current_ != nullptr; }
  bool holds(std::string_view name) const { return current_ && current_->name == name; }

 private:
  struct Open {
    std::string name;
    std::unique_ptr<base::FileLayer::Growing> file;
    int64_t start = 0;  // size at the last acknowledgement
    int64_t size = 0;
  };
  bool go_on_in(const std::string& name, int64_t bytes);
  void make_room(int64_t bytes);

  base::FileLayer* files_;
  base::Path folder_;
  int64_t segment_bytes_;
  std::vector<std::string> offered_;
  std::shared_ptr<Open> current_;
  std::vector<std::shared_ptr<Open>> touched_;  // since the last acknowledgement
  bool new_names_ = false;
};

// Fills `values` with the record at `place`. "" or why it is not the one that was asked for (its bytes, or that the
// medium has lost them); then `values` means nothing. Errors: io where it cannot be read now.
std::string read_record(base::FileLayer::Reading& segment, const RecordPlace& place, const ChunkKey& key,
                        const RecordShape& shape, std::span<std::byte> values);
// The same where the values stand in the file, if it can be mapped; else in memory of their own.
std::string map_record(base::FileLayer::Reading& segment, const RecordPlace& place, const ChunkKey& key,
                       const RecordShape& shape, base::FileLayer::Content& values);
// As read_record, with the document's name.
std::string read_record(base::FileLayer::Reading& segment, const RecordPlace& place, const ChunkKey& key,
                        const RecordShape& shape, std::span<std::byte> values, std::string& source);

// Calls visitor(info, offset) for every head that is whole and whose record ends inside the segment; what is damaged is
// stepped over. The values are not looked at: the visitor says whether they are whole, and where they are not, heads
// are looked for among them too, since what was cut off may have been written over. Errors: io.
void scan_segment(base::FileLayer::Reading& segment, const std::function<bool(const RecordInfo&, int64_t)>& visitor);

}  // namespace cepe::context
