// The program: its sub-commands, and the one place where errors become words and exit codes.
#pragma once

#include <CLI/App.hpp>
#include <exception>
#include <memory>
#include <string>

#include "cli/common_options.h"

namespace cepe::cli {

inline constexpr int exit_failure = 1;  // the machine's or the program's fault
inline constexpr int exit_mistake = 2;  // the user can mend it by asking differently
inline constexpr int exit_interrupted = 130;

// The whole command line, ready to parse. `options` must outlive it.
std::unique_ptr<CLI::App> make_program(CommonOptions& options);

int run(int argument_count, char** arguments);

struct Failure {
  std::string message;  // empty: nothing to say
  int exit_code = exit_failure;
};
// What to say about an exception that a sub-command ended with.
Failure explain(const std::exception_ptr& error);

}  // namespace cepe::cli
