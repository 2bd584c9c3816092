#include "base/interrupt.h"

#include <signal.h>
#include <unistd.h>

namespace cepe::base {
namespace {

volatile sig_atomic_t flag = 0;

void on_signal(int signal) {
  if (flag) _exit(130);
  flag = signal;
}

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  // No SA_RESTART: a blocking read of standard input returns.
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return flag != 0; }

void throw_if_interrupted() {
  if (interrupted()) throw Interrupted();
}

bool forget_interrupt() {
  if (flag != SIGINT) return false;
  flag = 0;
  return true;
}

}  // namespace cepe::base
