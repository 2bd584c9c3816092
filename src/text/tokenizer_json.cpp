#include "text/tokenizer_json.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "text/bpe.h"
#include "text/bpe_merges.h"
#include "text/unigram.h"
#include "text/wordpiece.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

const Json& field_of(const Json& json, const char* field) {
  static const Json null;
  return base::json_has(json, field) ? json[field] : null;
}

// Files of before 2021 do not name their model.
std::string model_type(const Json& model, const std::string& where) {
  if (base::json_has(model, "type")) return base::json_string(model, "type", where);
  if (base::json_has(model, "merges")) return "BPE";
  return field_of(model, "vocab").is_array() ? "Unigram" : "WordPiece";
}

// The id of the model's unknown token; it may also be one of the added tokens.
Token unknown_of(const Json& model, const Vocabulary& vocabulary, const std::vector<AddedToken>& added,
                 const std::string& where) {
  const std::string token = base::json_string(model, "unk_token", where, "");
  if (token.empty()) return Vocabulary::absent;
  const Token id = vocabulary.find(token);
  if (id != Vocabulary::absent) return id;
  const auto found = std::find_if(added.begin(), added.end(), [&](const auto& one) { return one.content == token; });
  if (found != added.end()) return found->id;
  throw Error(ErrorCode::corrupt,
              where + ": field 'unk_token' names '" + token.substr(0, 80) + "', which is no token of the vocabulary");
}

std::unique_ptr<Model> read_bpe(const Json& json, const std::vector<AddedToken>& added, const std::string& where) {
  if (base::json_number(json, "dropout", where, 0) != 0)
    throw Error(ErrorCode::unsupported, where + ": field 'dropout' other than 0 is not supported");
  Vocabulary vocabulary = Vocabulary::from_json(field_of(json, "vocab"), where + ".vocab");
  BpeSettings settings;
  settings.unknown = unknown_of(json, vocabulary, added, where);
  settings.fuse_unknown = base::json_boolean(json, "fuse_unk", where, false);
  settings.byte_fallback = base::json_boolean(json, "byte_fallback", where, false);
  settings.ignore_merges = base::json_boolean(json, "ignore_merges", where, false);
  settings.special = special_ids(added, vocabulary);
  settings.continuing_prefix = base::json_string(json, "continuing_subword_prefix", where, "");
  settings.end_suffix = base::json_string(json, "end_of_word_suffix", where, "");
  MergeTable merges =
      merges_from_json(field_of(json, "merges"), vocabulary, settings.continuing_prefix, where + ".merges");
  return std::make_unique<Bpe>(std::move(vocabulary), std::move(merges), std::move(settings));
}

std::unique_ptr<Model> read_wordpiece(const Json& json, const std::vector<AddedToken>& added,
                                      const std::string& where) {
  Vocabulary vocabulary = Vocabulary::from_json(field_of(json, "vocab"), where + ".vocab");
  WordPieceSettings settings;
  settings.unknown = unknown_of(json, vocabulary, added, where);
  if (settings.unknown == Vocabulary::absent) throw Error(ErrorCode::corrupt, where + ": field 'unk_token' is missing");
  settings.continuing_prefix = base::json_string(json, "continuing_subword_prefix", where, "##");
  settings.longest_word = base::json_integer(json, "max_input_chars_per_word", where, 100);
  settings.special = special_ids(added, vocabulary);
  return std::make_unique<WordPiece>(std::move(vocabulary), std::move(settings));
}

std::unique_ptr<Model> read_model(const Json& json, const std::vector<AddedToken>& added, const std::string& where) {
  if (!json.is_object()) throw Error(ErrorCode::corrupt, where + " must be an object");
  const std::string type = model_type(json, where);
  if (type == "BPE") return read_bpe(json, added, where);
  if (type == "WordPiece") return read_wordpiece(json, added, where);
  if (type == "Unigram") return unigram_from_json(json, added, where);
  throw Error(ErrorCode::unsupported,
              where + ": model '" + type.substr(0, 80) + "' is not supported; BPE, WordPiece and Unigram are");
}

std::vector<AddedToken> read_added(const Json& json, const std::string& where) {
  std::vector<AddedToken> added;
  if (json.is_null()) return added;
  if (!json.is_array()) throw Error(ErrorCode::corrupt, where + " must be an array");
  for (size_t i = 0; i < json.size(); ++i) {
    added.push_back(added_token_from_json(json[i], where + "[" + std::to_string(i) + "]"));
  }
  return added;
}

// A token that the model knows keeps the model's id; two tokens must not share one.
void settle_ids(std::vector<AddedToken>& added, const Vocabulary& vocabulary, const std::string& where) {
  const int64_t largest = largest_added_id(vocabulary, added.size());
  std::unordered_map<Token, std::string> taken;
  for (AddedToken& token : added) {
    const Token known = vocabulary.find(token.content);
    if (known != Vocabulary::absent) token.id = known;
    const std::string* owner = nullptr;
    if (known == Vocabulary::absent && vocabulary.contains(token.id)) owner = &vocabulary.token(token.id);
    const auto [same_id, is_new] = taken.try_emplace(token.id, token.content);
    if (!is_new && same_id->second != token.content) owner = &same_id->second;
    if (owner) {
      throw Error(ErrorCode::corrupt, where + ": id " + std::to_string(token.id) + " of '" +
                                          token.content.substr(0, 80) + "' belongs to '" + owner->substr(0, 80) + "'");
    }
    if (token.id > largest) {
      throw Error(ErrorCode::corrupt, where + ": id " + std::to_string(token.id) + " of '" +
                                          token.content.substr(0, 80) + "' is out of range for " +
                                          std::to_string(vocabulary.size()) + " tokens");
    }
  }
}

int64_t size_with(const Vocabulary& vocabulary, const std::vector<AddedToken>& added) {
  int64_t size = vocabulary.size();
  for (const AddedToken& token : added) size = std::max<int64_t>(size, int64_t{token.id} + 1);
  return size;
}

std::optional<Token> id_in(const PipelineTokenizer& tokenizer, const std::optional<std::string>& token) {
  return token ? tokenizer.id_of(*token) : std::nullopt;
}

// The classes whose fast tokenizer makes its template from add_bos_token and add_eos_token alone.
bool template_from_config(const std::string& tokenizer_class) {
  for (const char* name : {"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"}) {
    if (tokenizer_class == name || tokenizer_class == std::string(name) + "Fast") return true;
  }
  return false;
}

void set_edge(std::vector<Token>& edge, std::optional<Token> token, std::optional<bool> wanted, bool may_remove) {
  if (!wanted || !token) return;
  if (*wanted && edge.empty()) edge = {*token};
  if (!*wanted && may_remove) std::erase(edge, *token);
}

}  // namespace

std::unique_ptr<PipelineTokenizer> tokenizer_from_json(std::string_view text, const std::string& where) {
  const Json json = base::parse_json(text, where);
  if (!json.is_object()) throw Error(ErrorCode::corrupt, where + ": must be an object");
  PipelineParts parts;
  std::vector<AddedToken> added = read_added(field_of(json, "added_tokens"), where + ": added_tokens");
  parts.model = read_model(field_of(json, "model"), added, where + ": model");
  const Vocabulary& vocabulary = parts.model->vocabulary();
  settle_ids(added, vocabulary, where + ": added_tokens");
  const int64_t size = size_with(vocabulary, added);
  parts.normalizer = normalizer_from_json(field_of(json, "normalizer"), where + ": normalizer");
  parts.pre_tokenizer = pre_tokenizer_from_json(field_of(json, "pre_tokenizer"), where + ": pre_tokenizer");
  parts.post_processor = post_processor_from_json(field_of(json, "post_processor"), size, where + ": post_processor");
  parts.decoder = decoder_from_json(field_of(json, "decoder"), where + ": decoder");
  parts.added = AddedTokens(std::move(added), parts.normalizer, where + ": added_tokens");
  return std::make_unique<PipelineTokenizer>(std::move(parts));
}

void apply_config(PipelineTokenizer& tokenizer, const TokenizerConfig& config) {
  tokenizer.bos = id_in(tokenizer, config.bos);
  tokenizer.eos = id_in(tokenizer, config.eos);
  tokenizer.pad = id_in(tokenizer, config.pad);
  tokenizer.unknown = id_in(tokenizer, config.unknown);
  tokenizer.chat_template = config.chat_template;
  PostProcessor post_processor = tokenizer.post_processor();
  const bool may_remove = template_from_config(config.tokenizer_class);
  set_edge(post_processor.before, tokenizer.bos, config.add_bos, may_remove);
  set_edge(post_processor.after, tokenizer.eos, config.add_eos, may_remove);
  const auto& before = post_processor.before;
  tokenizer.adds_bos = tokenizer.bos && std::find(before.begin(), before.end(), *tokenizer.bos) != before.end();
  tokenizer.set_post_processor(std::move(post_processor));
}

}  // namespace cepe::text
