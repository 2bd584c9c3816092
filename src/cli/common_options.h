// The options that every sub-command takes, and sub-commands that take them.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Validators.hpp>
#include <functional>
#include <string>

#include "base/files.h"

namespace cepe::cli {

struct CommonOptions {
  std::string device = "cpu";
  std::string dtype = "auto";
  int threads = 0;           // 0: as many as there are processors
  std::string cache_folder;  // empty: base::default_cache_folder()
  bool quiet = false, verbose = false;

  base::Path cache() const;   // where models and encoded chunks are
  base::Path chunks() const;  // of it
  base::Path kept() const;    // likewise: their K and V
};

// A sub-command with the common options; `body` runs once the whole command line is parsed. `example` ends its --help.
CLI::App* add_command(CLI::App& parent, const std::string& name, const std::string& description,
                      const std::string& example, CommonOptions& common, const std::function<void()>& body);
// One that only holds others ("store ls").
CLI::App* add_command_group(CLI::App& parent, const std::string& name, const std::string& description,
                            const std::string& example, CommonOptions& common);

void add_common_options(CLI::App& command, CommonOptions& common);

// Log level and threads, before a body runs. Errors: invalid_argument.
void apply(const CommonOptions& common);

// Any text but the empty one, which as the name of a file, folder or model is mostly a shell variable that is not set.
CLI::Validator not_empty();
CLI::Validator not_negative();  // a whole number from 0 on
// A whole number from 0 to 2^64 - 1; CLI11 takes what is beyond for the largest.
CLI::Validator seed_range();
// For transform(): a number of tokens, K and M of 1024 as base::parse_counts has them, becomes a plain number.
CLI::Validator token_count();

}  // namespace cepe::cli
