// Scripts that complete the command line in bash, zsh and fish.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

namespace cepe::cli {

struct CommandDescription {
  std::string path;  // "", "generate", "store ls"
  std::string description;
  struct Option {
    std::string name;  // "--model"
    std::string description;
    bool takes_value = false;
    std::vector<std::string> values;  // where only these are taken
  };
  std::vector<Option> options;
  bool takes_words = false;           // without an option's name: a file, say
  std::vector<std::string> words;     // where only these are taken
  std::vector<std::string> commands;  // names below this one
};

// The program and all that is below it, parents first.
std::vector<CommandDescription> describe(const CLI::App& program);

// Errors: invalid_argument for another shell.
std::string completion_script(const std::string& shell, const std::vector<CommandDescription>& commands);

}  // namespace cepe::cli
