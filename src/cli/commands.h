// One function a sub-command, each in the file of its name: it declares its options and what is called with them. A new
// sub-command is a file, a line here and a line in commands.cpp.
#pragma once

#include <CLI/App.hpp>

#include "cli/common_options.h"

namespace cepe::cli {

void add_generate(CLI::App& program, CommonOptions& common);
void add_chat(CLI::App& program, CommonOptions& common);
void add_info(CLI::App& program, CommonOptions& common);
void add_tokenize(CLI::App& program, CommonOptions& common);
void add_convert(CLI::App& program, CommonOptions& common);
void add_bench(CLI::App& program, CommonOptions& common);
void add_encode(CLI::App& program, CommonOptions& common);
void add_store(CLI::App& program, CommonOptions& common);
void add_adapter(CLI::App& program, CommonOptions& common);
void add_train(CLI::App& program, CommonOptions& common);
void add_eval(CLI::App& program, CommonOptions& common);
void add_data(CLI::App& program, CommonOptions& common);
void add_completion(CLI::App& program, CommonOptions& common);

// Sub-commands of eval.
void add_eval_lm(CLI::App& group, CommonOptions& common);
void add_eval_compare(CLI::App& group, CommonOptions& common);

// Sub-commands of data.
void add_data_info(CLI::App& group, CommonOptions& common);
void add_data_verify(CLI::App& group, CommonOptions& common);
void add_data_import(CLI::App& group, CommonOptions& common);
void add_data_export(CLI::App& group, CommonOptions& common);

// All of them, in the order in which --help shows them.
void add_commands(CLI::App& program, CommonOptions& common);

}  // namespace cepe::cli
