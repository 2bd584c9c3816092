// A tokenizer put together from its parts, in the order of tokenizer.json:
// added tokens -> normaliser -> pre-tokeniser -> model -> post-processor; the decoder goes back.
#pragma once

#include <memory>

#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"

namespace cepe::text {

struct PipelineParts {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<Model> model;
  AddedTokens added;
  PostProcessor post_processor;
  Decoder decoder;
};

class PipelineTokenizer final : public Tokenizer {
 public:
  explicit PipelineTokenizer(PipelineParts parts);

  std::vector<Token> encode(std::string_view text, const EncodeOptions& options = {}) const override;
  std::unique_ptr<Detokenizer> detokenizer(bool skip_special) const override;
  int64_t vocabulary_size() const override { return size_; }
  bool has(Token id) const override;
  std::optional<Token> id_of(std::string_view token) const override;
  std::string token_of(Token id) const override;
  bool is_special(Token id) const override;

  // Replaces what add_special puts around a text.
  void set_post_processor(PostProcessor post_processor);
  const PostProcessor& post_processor() const { return parts_.post_processor; }
  // Errors: invalid_argument where it is outside the vocabulary.
  std::string_view text_of(Token id) const;
  const Decoder& decoder() const { return parts_.decoder; }

 private:
  void encode_raw(std::string_view text, bool at_start, const EncodeOptions& options, std::vector<Token>& ids) const;
  void encode_normalized(std::string_view text, bool at_start, std::vector<Token>& ids) const;

  PipelineParts parts_;
  int64_t size_ = 0;
};

}  // namespace cepe::text
