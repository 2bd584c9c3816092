#include "cli/program.h"

#include <c10/util/Exception.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <sstream>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/cut_files.h"
#include "cli/processor.h"
#include "cli/standard_streams.h"
#include "engine/plain_error.h"
#include "ops/device.h"

namespace cepe::cli {
namespace {

Failure out_of_memory() { return {"not enough memory: " + std::string(engine::memory_remedy), exit_failure}; }

// What CLI11 says of a wrong command line, with the command whose --help tells more.
int report_command_line(const CLI::App& program, const CLI::ParseError& error) {
  std::string command = program.get_name();
  const CLI::App* at = &program;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    command += " " + at->get_name();
  }
  const std::vector<std::string> unknown = at->remaining();
  const bool misspelt = error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError) && !unknown.empty() &&
                        at->get_require_subcommand_min() > 0;
  base::log(base::LogLevel::error,
            (misspelt ? "there is no command '" + command + " " + unknown.front() + "'" : std::string(error.what())) +
                "\n  See: " + command + " --help");
  return exit_mistake;
}

int report_failure(const std::exception_ptr& error) {
  const Failure failure = explain(error);
  if (!failure.message.empty()) base::log(base::LogLevel::error, failure.message);
  return failure.exit_code;
}

int print_help_or_version(const CLI::App& program, const CLI::Success& help_or_version) {
  std::ostringstream text;
  const int code = program.exit(help_or_version, text, text);
  try {
    write_output(text.str());
    return code;
  } catch (...) {
    return report_failure(std::current_exception());
  }
}

}  // namespace

Failure explain(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const base::Interrupted&) {
    return {"", exit_interrupted};
  } catch (const base::Error& known) {
    return {known.what(), known.is_users() ? exit_mistake : exit_failure};
  } catch (const c10::Error& torch) {
    if (ops::is_out_of_memory(torch)) return out_of_memory();
    return {std::string("a defect of the program: ") + torch.what_without_backtrace(), exit_failure};
  } catch (const std::filesystem::filesystem_error& file) {
    return {file.path1().string() + ": " + file.code().message(), exit_failure};
  } catch (const std::exception& other) {
    if (ops::is_out_of_memory(other)) return out_of_memory();
    return {std::string("a defect of the program: ") + other.what(), exit_failure};
  }
}

std::unique_ptr<CLI::App> make_program(CommonOptions& options) {
  auto program = std::make_unique<CLI::App>(
      "Long, cheap context for open-weights language models: documents are read in parallel chunks by a small encoder, "
      "and the decoder attends to all of them.",
      "cepe");
  program->require_subcommand(1);
  add_common_options(*program, options);
  add_commands(*program, options);
  program->footer("Example:\n  cepe generate --document book.txt --prompt \"The moral of the book is\"");
  return program;
}

int run(int argument_count, char** arguments) {
  hold_closed_streams();
  if (const std::string missing = missing_processor_feature(processor_features()); !missing.empty()) {
    std::fprintf(stderr, "error: %s\n", missing.c_str());
    return exit_failure;
  }
  std::signal(SIGPIPE, SIG_DFL);  // a reader that has gone ends the program quietly, whatever the parent had set
  std::signal(SIGXFSZ, SIG_IGN);  // a file that would pass a limit of its size (ulimit -f) is an error of its writer
  base::catch_interrupts();
  explain_cut_files();
  CommonOptions options;
  const std::unique_ptr<CLI::App> program = make_program(options);
  try {
    program->parse(argument_count, arguments);
    return 0;
  } catch (const CLI::Success& help_or_version) {
    return print_help_or_version(*program, help_or_version);
  } catch (const CLI::ParseError& error) {
    return report_command_line(*program, error);
  } catch (...) {
    return report_failure(std::current_exception());
  }
}

}  // namespace cepe::cli
