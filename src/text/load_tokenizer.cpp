// Which tokenizer a folder or file holds.
#include "base/error.h"
#include "text/bert_vocabulary.h"
#include "text/sentencepiece.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;

constexpr size_t largest_file = size_t{512} << 20;

std::unique_ptr<Tokenizer> load_file(const base::Path& file) {
  const std::string where = file.string();
  const std::string extension = file.extension().string();
  if (extension == ".gguf") return load_gguf_tokenizer(formats::Checkpoint::open(file));
  if (extension != ".json" && extension != ".model" && extension != ".txt") {
    throw Error(ErrorCode::unsupported,
                where + ": a tokenizer is read from tokenizer.json, tokenizer.model, vocab.txt or a .gguf file");
  }
  const std::string content = base::read_file(file, largest_file);
  base::refuse_lfs_pointer(content, file);
  const TokenizerConfig config = read_tokenizer_config(file.parent_path());
  if (extension == ".model") return tokenizer_from_sentencepiece(content, config, where);
  if (extension == ".txt") return tokenizer_from_vocabulary(content, config, where);
  auto tokenizer = tokenizer_from_json(content, where);
  apply_config(*tokenizer, config);
  return tokenizer;
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const base::Path& path) {
  if (!std::filesystem::is_directory(path)) {
    if (!base::is_there(path)) throw Error(ErrorCode::not_found, path.string() + ": no such file or folder");
    return load_file(path);
  }
  for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.txt"}) {
    if (base::is_there(path / name)) return load_file(path / name);
  }
  throw Error(ErrorCode::not_found,
              path.string() + ": no tokenizer; looked for tokenizer.json, tokenizer.model and vocab.txt");
}

}  // namespace cepe::text
