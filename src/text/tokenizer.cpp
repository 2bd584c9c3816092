#include "text/tokenizer.h"

namespace cepe::text {

std::string Tokenizer::decode(std::span<const Token> ids, bool skip_special) const {
  const auto stream = detokenizer(skip_special);
  std::string text;
  for (const Token id : ids) stream->put(id, text);
  stream->finish(text);
  return text;
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(&tokenizer), detokenizer_(tokenizer.detokenizer(skip_special)) {}

std::string StreamDecoder::put(Token id) {
  std::string text;
  if (tokenizer_->has(id)) detokenizer_->put(id, text);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  detokenizer_->finish(text);
  return text;
}

}  // namespace cepe::text
