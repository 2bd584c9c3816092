// The tokenizer inside a GGUF file: keys tokenizer.ggml.* (the published GGUF specification).
#include <cmath>

#include "base/error.h"
#include "text/bpe.h"
#include "text/bpe_merges.h"
#include "text/byte_level.h"
#include "text/expressions.h"
#include "text/pipeline.h"
#include "text/utf8.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

// tokenizer.ggml.token_type
enum TokenType : int64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

class GgufTokenizerReader {
 public:
  GgufTokenizerReader(const Json& metadata, std::string where) : metadata_(metadata), where_(std::move(where)) {}

  std::unique_ptr<Tokenizer> read() {
    const std::string model = base::json_string(metadata_, "tokenizer.ggml.model", where_);
    if (model != "gpt2" && model != "llama") {
      throw Error(ErrorCode::unsupported, where_ + ": field 'tokenizer.ggml.model' is '" + model.substr(0, 80) +
                                              "'; supported are gpt2 and llama");
    }
    read_tokens();
    read_types();
    PipelineParts parts;
    model == "gpt2" ? make_byte_level(parts) : make_sentencepiece(parts);
    parts.added = AddedTokens(added_tokens(), {}, field("token_type"));
    const bool is_llama = model == "llama" || pre_ == "llama-bpe";
    parts.post_processor = post_processor(is_llama);
    const bool adds_bos = !parts.post_processor.before.empty();
    auto tokenizer = std::make_unique<PipelineTokenizer>(std::move(parts));
    tokenizer->bos = token_id("bos_token_id");
    tokenizer->eos = token_id("eos_token_id");
    tokenizer->pad = token_id("padding_token_id");
    tokenizer->unknown = token_id("unknown_token_id");
    tokenizer->adds_bos = adds_bos;
    tokenizer->chat_template = base::json_string(metadata_, "tokenizer.chat_template", where_, "");
    return tokenizer;
  }

 private:
  std::string key(const char* name) const { return std::string("tokenizer.ggml.") + name; }
  std::string field(const char* name) const { return where_ + ": " + key(name); }

  const Json* array(const char* name) const {
    if (!base::json_has(metadata_, key(name).c_str())) return nullptr;
    const Json& value = metadata_[key(name)];
    if (!value.is_array()) throw Error(ErrorCode::corrupt, field(name) + " must be an array");
    return &value;
  }

  void read_tokens() {
    const Json* tokens = array("tokens");
    if (!tokens || tokens->empty()) throw Error(ErrorCode::corrupt, field("tokens") + " is missing");
    std::vector<std::string> texts;
    texts.reserve(tokens->size());
    for (const Json& token : *tokens) {
      if (!token.is_string()) throw Error(ErrorCode::corrupt, field("tokens") + " must be an array of strings");
      texts.push_back(replace_invalid(token.get_ref<const std::string&>()));
    }
    vocabulary_ = Vocabulary(std::move(texts));
  }

  void read_types() {
    types_.assign(static_cast<size_t>(vocabulary_.size()), normal);
    const Json* types = array("token_type");
    if (!types) return;
    check_count(*types, "token_type");
    for (size_t i = 0; i < types_.size(); ++i) {
      if (!(*types)[i].is_number_integer())
        throw Error(ErrorCode::corrupt, field("token_type") + " must hold integers");
      types_[i] = (*types)[i].get<int64_t>();
    }
  }

  void check_count(const Json& values, const char* name) const {
    if (values.size() == static_cast<size_t>(vocabulary_.size())) return;
    throw Error(ErrorCode::corrupt, field(name) + " has " + std::to_string(values.size()) + " values for " +
                                        std::to_string(vocabulary_.size()) + " tokens");
  }

  std::optional<Token> token_id(const char* name) const {
    const std::string full = key(name);
    if (!base::json_has(metadata_, full.c_str())) return {};
    const int64_t id = base::json_integer(metadata_, full.c_str(), where_);
    if (id < 0 || id >= vocabulary_.size()) {
      throw Error(ErrorCode::corrupt, field(name) + " is " + std::to_string(id) + ", outside the vocabulary of " +
                                          std::to_string(vocabulary_.size()) + " tokens");
    }
    return static_cast<Token>(id);
  }

  std::vector<AddedToken> added_tokens() const {
    std::vector<AddedToken> added;
    for (size_t i = 0; i < types_.size(); ++i) {
      const bool special = types_[i] == control || types_[i] == unknown;
      if (!special && types_[i] != user_defined) continue;
      const auto id = static_cast<Token>(i);
      added.push_back({id, vocabulary_.token(id), special});
    }
    return added;
  }

  PostProcessor post_processor(bool bos_by_default) const {
    PostProcessor result;
    const auto bos = token_id("bos_token_id"), eos = token_id("eos_token_id");
    if (bos && base::json_boolean(metadata_, key("add_bos_token").c_str(), where_, bos_by_default))
      result.before = {*bos};
    if (eos && base::json_boolean(metadata_, key("add_eos_token").c_str(), where_, false)) result.after = {*eos};
    return result;
  }

  void make_byte_level(PipelineParts& parts) {
    pre_ = base::json_string(metadata_, key("pre").c_str(), where_, "default");
    append_steps(parts);
    const Json* merges = array("merges");
    if (!merges) throw Error(ErrorCode::corrupt, field("merges") + " is missing");
    BpeSettings settings;
    settings.ignore_merges = pre_ == "llama-bpe";
    settings.special = special_ids(added_tokens(), vocabulary_);
    MergeTable table = merges_from_json(*merges, vocabulary_, "", field("merges"));
    parts.model = std::make_unique<Bpe>(vocabulary_, std::move(table), settings);
    parts.decoder.rules.emplace_back(ByteLevelDecoding{});
  }

  void append_steps(PipelineParts& parts) const {
    auto& steps = parts.pre_tokenizer.steps;
    const auto split = [&](const char* expression) {
      steps.emplace_back(PatternSplit{Pattern::regex(expression, field("pre"))});
    };
    if (pre_ == "smollm") {
      steps.emplace_back(ClassSplit{CharacterClass::numeric, SplitBehavior::isolated});
      split(gpt2_expression);
    } else if (pre_ == "gpt-2" || pre_ == "gpt2") {
      split(gpt2_expression);
    } else if (pre_ == "llama-bpe") {
      split(llama3_expression);
    } else if (pre_ == "qwen2") {
      parts.normalizer.rules.emplace_back(UnicodeForm::nfc);  // as the model's own tokenizer.json
      split(qwen2_expression);
    } else if (pre_ == "default") {
      for (const char* expression : default_expressions) split(expression);
    } else {
      throw Error(ErrorCode::unsupported, field("pre") + " is '" + pre_.substr(0, 80) +
                                              "'; supported are smollm, llama-bpe, qwen2, gpt-2 and default");
    }
    append_byte_level(steps, false, false);
  }

  void make_sentencepiece(PipelineParts& parts) {
    const Json* values = array("scores");
    if (!values) throw Error(ErrorCode::corrupt, field("scores") + " is missing");
    check_count(*values, "scores");
    std::vector<float> scores;
    std::vector<bool> mergeable;
    for (size_t i = 0; i < values->size(); ++i) {
      if (!(*values)[i].is_number() || !std::isfinite((*values)[i].get<float>()))
        throw Error(ErrorCode::corrupt, field("scores") + " must hold finite numbers");
      scores.push_back((*values)[i].get<float>());
      mergeable.push_back(types_[i] == normal || types_[i] == user_defined || types_[i] == unused);
    }
    const bool space_prefix = base::json_boolean(metadata_, key("add_space_prefix").c_str(), where_, true);
    if (space_prefix) parts.normalizer.rules.emplace_back(PrependRule{std::string(space_marker)});
    parts.normalizer.rules.emplace_back(ReplaceRule{Pattern::literal(" "), std::string(space_marker)});
    BpeSettings settings;
    settings.unknown = token_id("unknown_token_id").value_or(Vocabulary::absent);
    settings.byte_fallback = settings.fuse_unknown = true;
    MergeTable table = merges_from_scores(vocabulary_, scores, mergeable, field("tokens"));
    parts.model = std::make_unique<Bpe>(vocabulary_, std::move(table), settings);
    auto& rules = parts.decoder.rules;
    rules.emplace_back(ReplaceDecoding{Pattern::literal(std::string(space_marker)), " "});
    rules.emplace_back(ByteFallbackDecoding{});
    rules.emplace_back(FuseDecoding{});
    if (space_prefix) rules.emplace_back(StripDecoding{" ", 1, 0});
  }

  const Json& metadata_;
  std::string where_;
  Vocabulary vocabulary_;
  std::vector<int64_t> types_;
  std::string pre_;
};

}  // namespace

std::unique_ptr<Tokenizer> load_gguf_tokenizer(const formats::Checkpoint& checkpoint) {
  const std::string where = checkpoint.path().string();
  if (!checkpoint.metadata().is_object()) throw Error(ErrorCode::corrupt, where + ": has no metadata of a tokenizer");
  return GgufTokenizerReader(checkpoint.metadata(), where).read();
}

}  // namespace cepe::text
