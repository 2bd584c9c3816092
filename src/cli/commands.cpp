#include "cli/commands.h"

namespace cepe::cli {

void add_commands(CLI::App& program, CommonOptions& common) {
  for (const auto& add : {add_generate, add_chat, add_info, add_tokenize, add_convert, add_bench, add_encode, add_store,
                          add_adapter, add_data, add_train, add_eval, add_completion}) {
    add(program, common);
  }
}

}  // namespace cepe::cli
