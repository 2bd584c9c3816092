// Lines of a ByteSource, split at \n and nowhere else, in bounded memory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/byte_source.h"

namespace cepe::data {

class LineReader {
 public:
  LineReader(std::unique_ptr<ByteSource> source, size_t max_line_bytes);

  enum class Status { line, too_long, end };
  // The next line without its \n. too_long: `line` holds its beginning; the rest, which may have no end, is passed over
  // by the next call. Errors: those of the source, with the line; base::Interrupted.
  Status next(std::string& line);
  int64_t number() const { return number_; }  // of the last line, from 1

 private:
  bool refill();
  void pass_over_line();  // what is left of one that was too long

  std::unique_ptr<ByteSource> source_;
  size_t max_line_bytes_;
  std::vector<char> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  int64_t number_ = 0;
  bool in_long_line_ = false;
};

}  // namespace cepe::data
