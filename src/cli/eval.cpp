// cepe eval: what a model and its adapter are worth, one sub-command a protocol.
#include "cli/commands.h"

namespace cepe::cli {

void add_eval(CLI::App& program, CommonOptions& common) {
  CLI::App* group =
      add_command_group(program, "eval", "Measure what a context is worth", "cepe eval lm --text books.jsonl", common);
  group->require_subcommand(1);
  add_eval_lm(*group, common);
  add_eval_compare(*group, common);
}

}  // namespace cepe::cli
