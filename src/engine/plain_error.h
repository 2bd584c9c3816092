// What LibTorch throws, in the program's own words.
#pragma once

#include <exception>
#include <string_view>
#include <utility>

namespace cepe::engine {

// What helps where memory was refused, whoever asked for it.
inline constexpr std::string_view memory_remedy =
    "choose a smaller or quantised model or a shorter text, or end other programs";

// Within a catch block: throws the exception there on, LibTorch's as base::Error and without its stack trace:
// out_of_memory with the remedy where memory was refused, else internal.
[[noreturn]] void rethrow_plainly();
// The same, as what rethrow_plainly would throw.
std::exception_ptr current_plainly();

// What `work` gives; what it throws is thrown on by rethrow_plainly.
template <typename Work>
decltype(auto) plainly(Work&& work) {
  try {
    return std::forward<Work>(work)();
  } catch (...) {
    rethrow_plainly();
  }
}

}  // namespace cepe::engine
