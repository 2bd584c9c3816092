#include "text/sentencepiece.h"

#include <sentencepiece_processor.h>

#include <set>

#include "base/error.h"
#include "text/byte_tokens.h"
#include "text/tokenizer_json.h"
#include "text/utf8.h"

// Debian's SentencePiece and LibTorch export a variable of this name each, of 32 bytes and of 4: whichever is found
// first serves both, and the larger was made over what lies behind the smaller (after which LibTorch aborted where it
// has no memory). The program's own is found before theirs, and has room for either.
extern "C" {
extern char FLAGS_minloglevel[64];
alignas(64) char FLAGS_minloglevel[64];
}

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;

class SentencePieceModel final : public Model {
 public:
  // No text becomes one of the special tokens of `added`.
  SentencePieceModel(std::string_view bytes, std::span<const AddedToken> added, const std::string& where) {
    const auto status = processor_.LoadFromSerializedProto({bytes.data(), bytes.size()});
    if (!status.ok())
      throw Error(ErrorCode::corrupt, where + ": is no SentencePiece model: " + std::string(status.message()));
    std::vector<std::string> pieces;
    pieces.reserve(static_cast<size_t>(processor_.GetPieceSize()));
    for (int id = 0; id < processor_.GetPieceSize(); ++id) pieces.push_back(replace_invalid(processor_.IdToPiece(id)));
    if (pieces.empty()) throw Error(ErrorCode::corrupt, where + ": has no pieces");
    vocabulary_ = Vocabulary(std::move(pieces));
    special_ = special_ids(added, vocabulary_);
    byte_tokens_ = byte_tokens_of(vocabulary_);
  }

  void tokenize(const Pieces& pieces, std::vector<Token>& out) const override {
    std::vector<int> ids;
    for (const Piece& piece : pieces.list) {
      const std::string_view text = pieces.view(piece);
      const auto status = processor_.Encode({text.data(), text.size()}, &ids);
      if (!status.ok())
        throw Error(ErrorCode::internal, "SentencePiece cannot encode a text: " + std::string(status.message()));
      for (const int id : ids) special_.contains(id) ? spell(vocabulary_.token(id), out) : out.push_back(id);
    }
  }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

  bool is_special(Token id) const { return processor_.IsControl(id) || processor_.IsUnknown(id); }
  // Whether every text gets a space in front.
  bool adds_space() const {
    std::vector<std::string> pieces;
    return processor_.Encode("a", &pieces).ok() && !pieces.empty() && pieces.front().starts_with(space_marker);
  }
  std::string piece(int id) const {
    return id >= 0 && id < processor_.GetPieceSize() ? processor_.IdToPiece(id) : std::string();
  }
  std::string bos() const { return piece(processor_.bos_id()); }
  std::string eos() const { return piece(processor_.eos_id()); }
  std::string unknown() const { return piece(processor_.unk_id()); }

 private:
  // SentencePiece finds its user-defined symbols in any text; those that are special tokens are taken apart again.
  void spell(std::string_view symbol, std::vector<Token>& out) const {
    for (size_t at = 0; at < symbol.size();) {
      const std::string_view character = symbol.substr(at, character_at(symbol, at).size);
      at += character.size();
      const Token id = vocabulary_.find(character);
      if (id != Vocabulary::absent && !special_.contains(id)) {
        out.push_back(id);
        continue;
      }
      for (const char byte : character) {
        const Token byte_token = byte_tokens_[static_cast<uint8_t>(byte)];
        out.push_back(byte_token == Vocabulary::absent ? processor_.unk_id() : byte_token);
      }
    }
  }

  sentencepiece::SentencePieceProcessor processor_;
  Vocabulary vocabulary_;
  std::unordered_set<Token> special_;
  std::array<Token, 256> byte_tokens_{};
};

std::vector<AddedToken> added_tokens(const SentencePieceModel& model, const TokenizerConfig& config) {
  std::vector<AddedToken> added;
  std::set<Token> ids;
  const Vocabulary& vocabulary = model.vocabulary();
  for (const AddedToken& token : config.added) {
    if (vocabulary.contains(token.id) && vocabulary.token(token.id) != token.content) {
      throw Error(ErrorCode::corrupt, config.where + ": added_tokens_decoder: id " + std::to_string(token.id) +
                                          " of '" + token.content.substr(0, 80) + "' belongs to '" +
                                          vocabulary.token(token.id).substr(0, 80) + "'");
    }
    if (token.id > largest_added_id(vocabulary, config.added.size())) {
      throw Error(ErrorCode::corrupt, config.where + ": added_tokens_decoder: id " + std::to_string(token.id) +
                                          " of '" + token.content.substr(0, 80) + "' is out of range for " +
                                          std::to_string(vocabulary.size()) + " tokens");
    }
    added.push_back(token);
    added.back().normalized = false;  // SentencePiece normalises by itself
    ids.insert(token.id);
  }
  for (Token id = 0; id < vocabulary.size(); ++id) {
    if (model.is_special(id) && !ids.contains(id)) added.push_back({id, vocabulary.token(id), true});
  }
  return added;
}

Decoder decoder_of(const SentencePieceModel& model) {
  Decoder decoder;
  decoder.rules.emplace_back(ReplaceDecoding{Pattern::literal(std::string(space_marker)), " "});
  decoder.rules.emplace_back(ByteFallbackDecoding{});
  decoder.rules.emplace_back(FuseDecoding{});
  if (model.adds_space()) decoder.rules.emplace_back(StripDecoding{" ", 1, 0});
  return decoder;
}

}  // namespace

std::unique_ptr<PipelineTokenizer> tokenizer_from_sentencepiece(std::string_view bytes, const TokenizerConfig& config,
                                                                const std::string& where) {
  auto model = std::make_unique<SentencePieceModel>(bytes, config.added, where);
  TokenizerConfig completed = config;
  if (!completed.bos) completed.bos = model->bos();
  if (!completed.eos) completed.eos = model->eos();
  if (!completed.unknown) completed.unknown = model->unknown();
  if (!completed.add_bos) completed.add_bos = true;
  PipelineParts parts;
  parts.added = AddedTokens(added_tokens(*model, config), {}, config.where + ": added_tokens_decoder");
  parts.decoder = decoder_of(*model);
  parts.model = std::move(model);
  auto tokenizer = std::make_unique<PipelineTokenizer>(std::move(parts));
  apply_config(*tokenizer, completed);
  return tokenizer;
}

}  // namespace cepe::text
