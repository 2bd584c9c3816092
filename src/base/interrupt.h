// Ctrl-C: long work asks `interrupted()` between pieces, saves what is done and throws Interrupted.
#pragma once

#include <exception>

namespace cepe::base {

struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// From now on SIGINT and SIGTERM set the flag; a second one ends the process at once.
void catch_interrupts();
bool interrupted();
void throw_if_interrupted();
// For a program that goes on once what Ctrl-C was meant for has stopped: as if it had not been pressed. False, and
// nothing happens, where there was none, or SIGTERM.
bool forget_interrupt();

}  // namespace cepe::base
