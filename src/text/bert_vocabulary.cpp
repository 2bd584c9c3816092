#include "text/bert_vocabulary.h"

#include "base/error.h"
#include "text/tokenizer_json.h"
#include "text/utf8.h"
#include "text/wordpiece.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;

Vocabulary read_lines(std::string_view lines, const std::string& where) {
  std::vector<std::string> tokens;
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    std::string_view line = lines.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    tokens.push_back(replace_invalid(line));
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
  if (tokens.empty()) throw Error(ErrorCode::corrupt, where + ": has no tokens");
  return Vocabulary(std::move(tokens));
}

Token needed(const Vocabulary& vocabulary, const std::string& token, const std::string& where) {
  const Token id = vocabulary.find(token);
  if (id == Vocabulary::absent)
    throw Error(ErrorCode::corrupt, where + ": lacks the token '" + token.substr(0, 80) + "'");
  return id;
}

}  // namespace

std::unique_ptr<PipelineTokenizer> tokenizer_from_vocabulary(std::string_view lines, const TokenizerConfig& config,
                                                             const std::string& where) {
  Vocabulary vocabulary = read_lines(lines, where);
  TokenizerConfig completed = config;
  if (!completed.unknown) completed.unknown = "[UNK]";
  if (!completed.pad) completed.pad = "[PAD]";
  const std::string cls = config.cls.value_or("[CLS]"), sep = config.sep.value_or("[SEP]");
  PipelineParts parts;
  parts.post_processor = {{needed(vocabulary, cls, where)}, {needed(vocabulary, sep, where)}};
  std::vector<AddedToken> added;
  for (const std::string& token : {*completed.pad, *completed.unknown, cls, sep, config.mask.value_or("[MASK]")}) {
    const Token id = vocabulary.find(token);
    if (id != Vocabulary::absent) added.push_back({id, token, true});
  }
  parts.added = AddedTokens(std::move(added), {}, where);
  parts.normalizer.rules.emplace_back(
      BertRule{true, config.separate_chinese, config.strip_accents.value_or(config.lowercase), config.lowercase});
  parts.pre_tokenizer.steps.emplace_back(ClassSplit{CharacterClass::whitespace, SplitBehavior::removed});
  parts.pre_tokenizer.steps.emplace_back(ClassSplit{CharacterClass::punctuation, SplitBehavior::isolated});
  parts.decoder.rules.emplace_back(WordPieceDecoding{});
  const Token unknown = needed(vocabulary, *completed.unknown, where);
  parts.model = std::make_unique<WordPiece>(std::move(vocabulary), WordPieceSettings{unknown});
  auto tokenizer = std::make_unique<PipelineTokenizer>(std::move(parts));
  apply_config(*tokenizer, completed);
  return tokenizer;
}

}  // namespace cepe::text
