// cepe tokenize: text to token ids and back.
#include <charconv>
#include <filesystem>
#include <sstream>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/documents.h"
#include "cli/runtime.h"
#include "cli/standard_streams.h"
#include "data/documents.h"
#include "model/locate.h"

namespace cepe::cli {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

struct TokenizeOptions {
  ModelOptions model;
  std::optional<std::string> text;
  std::string file;
  bool decode = false, count = false, json = false, special = false;
};

// Errors: those of data::utf8_text: ids of other bytes would be those of no text that a command reads.
std::string input_of(const TokenizeOptions& options) {
  if (options.text && !options.file.empty())
    throw Error(ErrorCode::invalid_argument, "TEXT and --file: give one of them");
  if (options.text) {
    std::error_code none;  // as a name it may be too long
    if (std::filesystem::is_regular_file(*options.text, none))
      base::warn("'" + *options.text +
                 "' is the name of a file, and the name is what is tokenized: for what the file " +
                 "holds give --file " + *options.text);
    return data::utf8_text(*options.text, "TEXT");
  }
  if (!options.file.empty() && options.file != "-") return data::utf8_text(base::read_file(options.file), options.file);
  announce_waiting("reading standard input (Ctrl-D ends it)");
  return data::utf8_text(read_standard_input(), "standard input");
}

std::vector<text::Token> ids_in(const std::string& text) {
  std::string plain = text;
  for (char& c : plain) {
    if (c == ',' || c == '[' || c == ']') c = ' ';
  }
  std::vector<text::Token> ids;
  std::stringstream words(plain);
  for (std::string word; words >> word;) {
    text::Token id = 0;
    const auto [end, problem] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (problem != std::errc() || end != word.data() + word.size())
      throw Error(ErrorCode::invalid_argument, "--decode: '" + word + "' is no token id; expected whole numbers");
    ids.push_back(id);
  }
  return ids;
}

std::unique_ptr<text::Tokenizer> tokenizer_of(const TokenizeOptions& options, const CommonOptions& common) {
  if (!options.model.tokenizer.empty()) return load_tokenizer_at(options.model.tokenizer);
  return load_tokenizer_at(model::locate_model(options.model.model, common.cache()));
}

Json tokens_json(const text::Tokenizer& tokenizer, const std::vector<text::Token>& ids) {
  Json names = Json::array();
  for (const text::Token id : ids) names.push_back(tokenizer.token_of(id));
  return {{"ids", ids}, {"tokens", names}, {"count", ids.size()}};
}

std::string ids_text(const std::vector<text::Token>& ids) {
  std::string text;
  for (const text::Token id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  return text + "\n";
}

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

void tokenize(const TokenizeOptions& options, const CommonOptions& common) {
  const auto tokenizer = tokenizer_of(options, common);
  const std::string input = input_of(options);
  if (options.decode) {
    const std::vector<text::Token> ids = ids_in(input);
    const std::string text = tokenizer->decode(ids, false);
    write_output(options.json ? dump({{"text", text}, {"count", ids.size()}}) : text + "\n");
    return;
  }
  const std::vector<text::Token> ids =
      tokenizer->encode(input, {.add_special = options.special, .parse_special = options.special});
  if (options.json) {
    write_output(dump(options.count ? Json({{"count", ids.size()}}) : tokens_json(*tokenizer, ids)));
  } else {
    write_output(options.count ? std::to_string(ids.size()) + "\n" : ids_text(ids));
  }
}

}  // namespace

void add_tokenize(CLI::App& program, CommonOptions& common) {
  const auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = add_command(program, "tokenize", "Text to token ids, or ids to text",
                                  "cepe tokenize \"How many tokens are these?\"", common,
                                  [options, &common] { tokenize(*options, common); });
  command->add_option("TEXT", options->text, "what to tokenize, itself and not the name of a file [standard input]");
  command->add_option("--file", options->file, "a file with what to tokenize")->check(not_empty());
  CLI::Option* decode = command->add_flag("--decode", options->decode, "the input is token ids: print their text");
  command->add_flag("--count", options->count, "only how many tokens there are")->excludes(decode);
  command
      ->add_flag("--special", options->special,
                 "add what the model puts around a text, and take spelled-out special tokens for real ones")
      ->excludes(decode);
  command->add_flag("--json", options->json, "one JSON object instead of text");
  command->add_option("-m,--model", options->model.model, "whose tokenizer [SmolLM2-135M-Instruct]")
      ->check(not_empty())
      ->group("Model");
  command->add_option("--tokenizer", options->model.tokenizer, "folder, tokenizer.json, tokenizer.model or .gguf")
      ->check(not_empty())
      ->group("Model");
}

}  // namespace cepe::cli
