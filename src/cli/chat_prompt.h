// A conversation as token ids, by the model's chat template. What people wrote never becomes a special token.
#pragma once

#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace cepe::cli {

class ChatPrompt {
 public:
  // Errors: invalid_argument where the model has no chat template; those of ChatTemplate.
  ChatPrompt(const text::Tokenizer& tokenizer, const std::string& model_name);
  // Ids up to where the assistant's answer begins.
  std::vector<text::Token> encode(const std::vector<text::ChatMessage>& messages) const;

 private:
  const text::Tokenizer* tokenizer_;
  text::ChatTemplate template_;
};

}  // namespace cepe::cli
