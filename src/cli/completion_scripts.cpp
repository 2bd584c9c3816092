#include "cli/completion_scripts.h"

#include <algorithm>

#include "base/error.h"

namespace cepe::cli {
namespace {

// The first line of a description, without what a shell's quotes would end at.
std::string plain(std::string text) {
  text = text.substr(0, text.find('\n'));
  for (char& c : text) {
    if (c == '\'' || c == '[' || c == ']' || c == ':' || c == '`' || c == '$' || c == '"' || c == '\\') c = ' ';
  }
  return text;
}

// CLI11 keeps the allowed values only in words: {a,b}.
std::vector<std::string> values_of(const CLI::Option& option) {
  std::vector<std::string> values;
  const std::string type = option.get_type_name();
  const size_t open = type.find('{'), close = type.find('}');
  if (open == std::string::npos || close == std::string::npos) return values;
  for (size_t at = open + 1; at < close;) {
    const size_t end = std::min(type.find(',', at), close);
    values.push_back(type.substr(at, end - at));
    at = end + 1;
  }
  return values;
}

void describe_into(const CLI::App& command, const std::string& path, std::vector<CommandDescription>& out) {
  CommandDescription one;
  one.path = path;
  one.description = command.get_description();
  for (const CLI::Option* option : command.get_options()) {
    if (!option->get_lnames().empty()) {
      one.options.push_back({"--" + option->get_lnames().front(), option->get_description(),
                             option->get_type_size_max() > 0, values_of(*option)});
    } else if (option->get_positional()) {
      one.takes_words = true;
      one.words = values_of(*option);
    }
  }
  const auto below = command.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* each : below) one.commands.push_back(each->get_name());
  out.push_back(std::move(one));
  for (const CLI::App* each : below)
    describe_into(*each, path.empty() ? each->get_name() : path + " " + each->get_name(), out);
}

std::string path_below(const CommandDescription& command, const std::string& name) {
  return command.path.empty() ? name : command.path + " " + name;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::string option_names(const CommandDescription& command) {
  std::vector<std::string> names = command.commands;
  for (const auto& option : command.options) names.push_back(option.name);
  return joined(names);
}

// Where a word may be a file, options are told only once a dash is typed. No words: files, in the end.
std::string bash_words(const CommandDescription& command) {
  std::string options = "words='" + option_names(command) + "'";
  if (!command.takes_words) return options;
  return "if [[ \"$word\" == -* ]]; then " + options + "; else words='" + joined(command.words) + "'; fi";
}

// Which command is being typed: the words that are names of commands, one level after another.
std::string shell_path_search(const std::vector<CommandDescription>& commands) {
  std::string cases;
  for (const CommandDescription& command : commands) {
    for (const std::string& below : command.commands) {
      cases.append("      \"").append(command.path).append("|").append(below).append("\") at=\"");
      cases.append(path_below(command, below)).append("\" ;;\n");
    }
  }
  return cases;
}

std::string bash_script(const std::vector<CommandDescription>& commands) {
  std::string script =
      "# bash completion of cepe\n_cepe() {\n  local word=\"${COMP_WORDS[COMP_CWORD]}\" "
      "before=\"${COMP_WORDS[COMP_CWORD-1]}\" at=\"\" i\n  COMPREPLY=()\n"
      "  for ((i = 1; i < COMP_CWORD; ++i)); do\n    case \"$at|${COMP_WORDS[i]}\" in\n" +
      shell_path_search(commands) + "    esac\n  done\n";
  script += "  case \"$at|$before\" in\n";
  for (const CommandDescription& command : commands) {
    for (const auto& option : command.options) {
      if (!option.takes_value) continue;
      const std::string reply =
          option.values.empty() ? "compgen -f -- \"$word\"" : "compgen -W '" + joined(option.values) + "' -- \"$word\"";
      script +=
          "    \"" + command.path + "|" + option.name + "\") mapfile -t COMPREPLY < <(" + reply + "); return ;;\n";
    }
  }
  script += "  esac\n  local words=\"\"\n  case \"$at\" in\n";
  for (const CommandDescription& command : commands)
    script += "    \"" + command.path + "\") " + bash_words(command) + " ;;\n";
  return script +
         "  esac\n  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
         "  [ ${#COMPREPLY[@]} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n}\n"
         "complete -o filenames -F _cepe cepe\n";
}

std::string zsh_script(const std::vector<CommandDescription>& commands) {
  std::string script =
      "#compdef cepe\n_cepe() {\n  local at=\"\" i\n  for ((i = 2; i < CURRENT; ++i)); do\n"
      "    case \"$at|${words[i]}\" in\n" +
      shell_path_search(commands) + "    esac\n  done\n  case \"$at\" in\n";
  for (const CommandDescription& command : commands) {
    script += "    '" + command.path + "')\n";
    if (!command.commands.empty()) script += "      compadd -- " + joined(command.commands) + "\n";
    const std::string words = command.words.empty() ? "file:_files" : "value:(" + joined(command.words) + ")";
    script += "      _arguments '*:" + words + "'";
    for (const auto& option : command.options) {
      script += " \\\n        '*" + option.name + "[" + plain(option.description) + "]";
      if (option.takes_value)
        script += option.values.empty() ? ":value:_files" : ":value:(" + joined(option.values) + ")";
      script += "'";
    }
    script += " ;;\n";
  }
  return script + "  esac\n}\nif [ \"$funcstack[1]\" = _cepe ]; then _cepe \"$@\"; else compdef _cepe cepe; fi\n";
}

std::string fish_condition(const CommandDescription& command) {
  if (command.path.empty()) return "__fish_use_subcommand";
  const size_t space = command.path.find(' ');
  if (space == std::string::npos) return "__fish_seen_subcommand_from " + command.path;
  return "__fish_seen_subcommand_from " + command.path.substr(0, space) + "; and __fish_seen_subcommand_from " +
         command.path.substr(space + 1);
}

std::string fish_script(const std::vector<CommandDescription>& commands) {
  std::string script = "# fish completion of cepe\n";
  for (const CommandDescription& command : commands) {
    const std::string start = "complete -c cepe -n '" + fish_condition(command) + "' ";
    for (const std::string& below : command.commands) {
      const auto found = std::find_if(commands.begin(), commands.end(), [&](const CommandDescription& each) {
        return each.path == path_below(command, below);
      });
      script.append(start)
          .append("-f -a ")
          .append(below)
          .append(" -d '")
          .append(plain(found->description))
          .append("'\n");
    }
    if (!command.words.empty()) script += start + "-f -a '" + joined(command.words) + "'\n";
    for (const auto& option : command.options) {
      script += start + "-l " + option.name.substr(2);
      if (option.takes_value) script += option.values.empty() ? " -r" : " -x -a '" + joined(option.values) + "'";
      script += " -d '" + plain(option.description) + "'\n";
    }
  }
  return script;
}

}  // namespace

std::vector<CommandDescription> describe(const CLI::App& program) {
  std::vector<CommandDescription> commands;
  describe_into(program, "", commands);
  return commands;
}

std::string completion_script(const std::string& shell, const std::vector<CommandDescription>& commands) {
  if (shell == "bash") return bash_script(commands);
  if (shell == "zsh") return zsh_script(commands);
  if (shell == "fish") return fish_script(commands);
  throw base::Error(base::ErrorCode::invalid_argument, "shell '" + shell + "': known are bash, zsh, fish");
}

}  // namespace cepe::cli
