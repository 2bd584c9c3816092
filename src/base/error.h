// The one exception type of the project. The message says what was given, what was expected and where
// (file, tensor, field, line); the code says whose fault it is. `cli` translates it in one place.
#pragma once

#include <stdexcept>
#include <string>

namespace cepe::base {

enum class ErrorCode {
  invalid_argument,  // the caller's request makes no sense: exit code 2
  not_found,         // a file, tensor or model that is not there: exit code 2
  corrupt,           // a file whose bytes contradict its format: exit code 2
  unsupported,       // well formed, but not something this program can do: exit code 2
  mismatch,          // two things that do not belong together (adapter and decoder): exit code 2
  out_of_memory,     // does not fit, with the figures: exit code 1
  io,                // the operating system refused a read or write: exit code 1
  internal,          // a defect of ours: exit code 1
};

class Error : public std::runtime_error {
 public:
  // NUL characters of the message (a name that a file of the user's holds) are written \x00: what() would end there.
  Error(ErrorCode code, const std::string& message);
  ErrorCode code() const { return code_; }
  // True where the user can mend it by asking differently (exit code 2).
  bool is_users() const {
    return code_ != ErrorCode::out_of_memory && code_ != ErrorCode::io && code_ != ErrorCode::internal;
  }

 private:
  ErrorCode code_;
};

}  // namespace cepe::base
