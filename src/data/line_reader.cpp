#include "data/line_reader.h"

#include <algorithm>
#include <utility>

namespace cepe::data {

LineReader::LineReader(std::unique_ptr<ByteSource> source, size_t max_line_bytes)
    : source_(std::move(source)), max_line_bytes_(max_line_bytes), buffer_(size_t{256} << 10) {}

bool LineReader::refill() {
  begin_ = 0;
  end_ = source_->read(buffer_);
  return end_ > 0;
}

LineReader::Status LineReader::next(std::string& line) {
  line.clear();
  bool any = false, too_long = false;
  while (begin_ < end_ || refill()) {
    any = true;
    const auto first = buffer_.begin() + static_cast<ptrdiff_t>(begin_);
    const auto last = buffer_.begin() + static_cast<ptrdiff_t>(end_);
    const auto newline = std::find(first, last, '\n');
    const auto length = static_cast<size_t>(newline - first);
    const size_t kept = std::min(length, max_line_bytes_ - line.size());
    line.append(first, first + static_cast<ptrdiff_t>(kept));
    too_long = too_long || kept < length;
    begin_ += length;
    if (newline != last) {
      ++begin_;
      break;
    }
  }
  if (!any) return Status::end;
  ++number_;
  return too_long ? Status::too_long : Status::line;
}

}  // namespace cepe::data
