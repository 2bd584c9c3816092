#include "cli/standard_streams.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"

namespace cepe::cli {
namespace {

using base::Error;
using base::ErrorCode;

// What a line reader has read beyond its line.
std::string& unread() {
  static std::string rest;
  return rest;
}

// A signal that comes just before a read, or to another thread, would not end it.
void await_input() {
  struct pollfd input = {STDIN_FILENO, POLLIN, 0};
  constexpr int patience = 200;  // milliseconds
  int found = 0;
  do {
    base::throw_if_interrupted();
    found = poll(&input, 1, patience);
  } while (found == 0 || (found < 0 && errno == EINTR));
}

// Appends what is there; false at the end.
bool read_some(std::string& out) {
  std::array<char, 65536> buffer;
  while (true) {
    await_input();
    const ssize_t count = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (count >= 0) {
      out.append(buffer.data(), static_cast<size_t>(count));
      return count > 0;
    }
    if (errno != EINTR) throw Error(ErrorCode::io, std::string("standard input: ") + std::strerror(errno));
  }
}

}  // namespace

void hold_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number, hence this one. The wrong way round: whoever uses it gets EBADF, as of a closed one.
    ::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

std::string read_standard_input(size_t max_bytes) {
  std::string text = std::move(unread());
  unread().clear();
  while (read_some(text)) {
    if (text.size() > max_bytes)
      throw Error(ErrorCode::invalid_argument, "standard input: more than " + std::to_string(max_bytes) + " bytes");
  }
  return text;
}

std::optional<std::string> read_input_line() {
  std::string& rest = unread();
  size_t end = rest.find('\n');
  while (end == std::string::npos) {
    if (rest.size() > (size_t{64} << 20)) throw Error(ErrorCode::invalid_argument, "standard input: a line of 64 MiB");
    if (!read_some(rest)) {
      if (rest.empty()) return std::nullopt;
      end = rest.size();
      break;
    }
    end = rest.find('\n');
  }
  std::string line = rest.substr(0, end);
  rest.erase(0, end + 1);
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

bool standard_input_is_fed() {
  struct stat status {};
  return fstat(STDIN_FILENO, &status) == 0 &&
         (S_ISFIFO(status.st_mode) || S_ISREG(status.st_mode) || S_ISSOCK(status.st_mode));
}

bool standard_input_is_terminal() { return isatty(STDIN_FILENO) != 0; }

void announce_waiting(std::string_view for_what) {
  struct pollfd input = {STDIN_FILENO, POLLIN, 0};
  const int patience = standard_input_is_terminal() ? 0 : 2000;  // milliseconds
  if (poll(&input, 1, patience) == 0) base::notice(std::string(for_what));
  base::throw_if_interrupted();
}

void write_output(std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(STDOUT_FILENO, text.data(), text.size());
    if (count >= 0) {
      text.remove_prefix(static_cast<size_t>(count));
    } else if (errno != EINTR) {
      throw Error(ErrorCode::io, std::string("standard output: ") + std::strerror(errno));
    }
  }
}

}  // namespace cepe::cli
