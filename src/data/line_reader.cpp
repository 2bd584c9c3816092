#include "data/line_reader.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/interrupt.h"

namespace cepe::data {

LineReader::LineReader(std::unique_ptr<ByteSource> source, size_t max_line_bytes)
    : source_(std::move(source)), max_line_bytes_(max_line_bytes), buffer_(size_t{256} << 10) {}

bool LineReader::refill() {
  base::throw_if_interrupted();
  begin_ = 0;
  try {
    end_ = source_->read(buffer_);
  } catch (const base::Error& error) {
    const char* remedy = error.code() == base::ErrorCode::corrupt ? "; fetch or copy it again" : "";
    throw base::Error(error.code(), std::string(error.what()) + ", in line " +
                                        std::to_string(in_long_line_ ? number_ : number_ + 1) + remedy);
  }
  return end_ > 0;
}

LineReader::Status LineReader::next(std::string& line) {
  pass_over_line();
  line.clear();
  bool any = false;
  while (begin_ < end_ || refill()) {
    any = true;
    const auto first = buffer_.begin() + static_cast<ptrdiff_t>(begin_);
    const auto last = buffer_.begin() + static_cast<ptrdiff_t>(end_);
    const auto newline = std::find(first, last, '\n');
    const auto length = static_cast<size_t>(newline - first);
    in_long_line_ = length > max_line_bytes_ - line.size();
    if (in_long_line_) break;
    line.append(first, newline);
    begin_ += length;
    if (newline != last) {
      ++begin_;
      break;
    }
  }
  if (!any) return Status::end;
  ++number_;
  return in_long_line_ ? Status::too_long : Status::line;
}

void LineReader::pass_over_line() {
  while (in_long_line_ && (begin_ < end_ || refill())) {
    const auto last = buffer_.begin() + static_cast<ptrdiff_t>(end_);
    const auto newline = std::find(buffer_.begin() + static_cast<ptrdiff_t>(begin_), last, '\n');
    in_long_line_ = newline == last;
    begin_ = static_cast<size_t>(newline - buffer_.begin()) + (in_long_line_ ? 0 : 1);
  }
  in_long_line_ = false;
}

}  // namespace cepe::data
