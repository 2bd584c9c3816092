#include "cli/cut_files.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <string_view>

#include "cli/program.h"

// What runs in the handler calls nothing but the few functions that POSIX allows there (signal-safety(7)).
namespace cepe::cli {
namespace {

class Characters {
 public:
  explicit Characters(const char* path) : file_(::open(path, O_RDONLY | O_CLOEXEC)) {}
  ~Characters() { ::close(file_); }
  Characters(const Characters&) = delete;
  Characters& operator=(const Characters&) = delete;

  int next() {  // -1 at the end
    if (at_ == size_) {
      at_ = 0;
      size_ = ::read(file_, buffer_, sizeof buffer_);
    }
    return size_ > 0 ? static_cast<unsigned char>(buffer_[at_++]) : -1;
  }

 private:
  int file_;
  char buffer_[1024];
  ssize_t size_ = 0, at_ = 0;
};

// Hexadecimal digits and the character behind them.
uintptr_t number_in(Characters& text) {
  uintptr_t number = 0;
  for (int c = text.next();; c = text.next()) {
    if (c >= '0' && c <= '9') {
      number = number * 16 + static_cast<uintptr_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      number = number * 16 + static_cast<uintptr_t>(c - 'a' + 10);
    } else {
      return number;
    }
  }
}

struct FileName {
  char text[4096];
  size_t size = 0;
};

// The file that is mapped there: of the lines "begin-end rights offset device inode  /path". False where there is none.
bool find_file_at(uintptr_t address, FileName& name) {
  Characters lines("/proc/self/maps");
  while (true) {
    const uintptr_t begin = number_in(lines), end = number_in(lines);
    const bool is_here = begin <= address && address < end;
    bool in_path = false;
    int c = lines.next();
    for (; c >= 0 && c != '\n'; c = lines.next()) {
      in_path = in_path || c == '/';
      if (is_here && in_path && name.size < sizeof name.text) name.text[name.size++] = static_cast<char>(c);
    }
    if (is_here) return name.size > 0;
    if (c < 0) return false;
  }
}

void say(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<size_t>(written));
  }
}

// As base::printable, which takes memory.
void say_printable(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  for (size_t i = 0; i < text.size(); ++i) {
    const auto code = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    const bool is_pair = code == 0xc2 && next >= 0x80 && next < 0xa0;  // U+0080 to U+009F in UTF-8
    if (!is_pair && code >= 0x20 && code != 0x7f) {
      say(text.substr(i, 1));
      continue;
    }
    const unsigned shown = is_pair ? next : code;
    const char escaped[] = {'\\', 'x', digits[shown >> 4], digits[shown & 15]};
    say({escaped, sizeof escaped});
    if (is_pair) ++i;
  }
}

void on_bus_error(int, siginfo_t* information, void*) {
  static std::atomic_flag said;
  FileName name;
  if (information->si_code != BUS_ADRERR || !find_file_at(reinterpret_cast<uintptr_t>(information->si_addr), name)) {
    ::signal(SIGBUS, SIG_DFL);
    ::raise(SIGBUS);  // when this returns
    return;
  }
  while (said.test_and_set()) ::pause();  // another thread says it, and ends all
  if (::isatty(STDERR_FILENO)) say("\r\x1b[K");
  say("error: ");
  say_printable({name.text, name.size});
  say(": was cut short while it was read, or its disk fails; try again once the file is whole\n");
  ::_exit(exit_failure);
}

}  // namespace

void explain_cut_files() {
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace cepe::cli
