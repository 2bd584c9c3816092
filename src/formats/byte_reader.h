// Little-endian values read one after another from bytes that strangers wrote; never beyond their end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"

namespace cepe::formats {

[[noreturn]] inline void fail_corrupt(const std::string& where, const std::string& what) {
  throw base::Error(base::ErrorCode::corrupt, where + ": " + what);
}
// Where bytes are missing, or are not those that were written.
[[noreturn]] inline void fail_damaged(const std::string& where, const std::string& what) {
  fail_corrupt(where, what + "; the file seems cut short or damaged: fetch or copy it again");
}
[[noreturn]] inline void fail_unsupported(const std::string& where, const std::string& what) {
  throw base::Error(base::ErrorCode::unsupported, where + ": " + what);
}

// A name from a file as it may stand in a message: in quotes, at most 80 bytes, control characters and broken UTF-8
// as '?'.
std::string in_quotes(std::string_view name);
bool is_utf8(std::string_view text);

class ByteReader {
 public:
  // `where` names the file in messages and outlives the reader.
  ByteReader(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }
  const std::string& where() const { return where_; }

  // Errors: corrupt, naming `what` and the position.
  std::span<const std::byte> take(uint64_t count, std::string_view what) {
    if (count > left()) {
      fail_damaged(where_, "ends inside " + std::string(what) + ": " + std::to_string(count) +
                               " bytes wanted at byte " + std::to_string(position_) + ", " + std::to_string(left()) +
                               " left");
    }
    const auto taken = bytes_.subspan(position_, count);
    position_ += count;
    return taken;
  }

  template <class T>
  T read(std::string_view what) {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::string_view text(uint64_t count, std::string_view what) {
    const auto taken = take(count, what);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& where_;
  size_t position_ = 0;
};

}  // namespace cepe::formats
