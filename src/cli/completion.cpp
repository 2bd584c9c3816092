// cepe completion: completion of the command line for a shell, made from the program's own options.
#include "base/error.h"
#include "cli/commands.h"
#include "cli/completion_scripts.h"
#include "cli/standard_streams.h"

namespace cepe::cli {

void add_completion(CLI::App& program, CommonOptions& common) {
  const auto shell = std::make_shared<std::string>();
  CLI::App* command = add_command(program, "completion", "Print completion of the command line for a shell",
                                  "cepe completion bash > ~/.local/share/bash-completion/completions/cepe", common,
                                  [shell, &program] { write_output(completion_script(*shell, describe(program))); });
  command->add_option("SHELL", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
}

}  // namespace cepe::cli
