// A mapped file that somebody cuts short is no error of a call: the system ends whoever reads behind its new end by the
// signal SIGBUS. Only the program says so in words; whoever embeds the library has signals of its own.
#pragma once

namespace cepe::cli {

// From here on such a read, or one that the disk fails, ends the process with exit_failure and the file's name on
// standard error. Any other SIGBUS ends it as before.
void explain_cut_files();

}  // namespace cepe::cli
