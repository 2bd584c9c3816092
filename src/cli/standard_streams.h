// Standard input and output of a program that obeys Ctrl-C and tells when its output is lost.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace cepe::cli {

// First of all: a file that is opened takes the lowest free number. Were that of a closed standard stream, what is said
// there would be written into the file: messages into the store, say.
void hold_closed_streams();

// Everything up to the end of standard input. Errors: invalid_argument beyond max_bytes, io; base::Interrupted.
std::string read_standard_input(size_t max_bytes = size_t{1} << 30);
// The next line without its end; nothing at the end of the input. The same errors.
std::optional<std::string> read_input_line();

// Whether something else than a terminal or a device is behind standard input: a pipe or a file.
bool standard_input_is_fed();
bool standard_input_is_terminal();
// Says after a moment that standard input is waited for, where it gives nothing.
void announce_waiting(std::string_view for_what);

// At once, not when a buffer is full. Errors: io (a full disk).
void write_output(std::string_view text);

}  // namespace cepe::cli
