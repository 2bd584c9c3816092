#include "cli/chat_prompt.h"

#include "base/error.h"

namespace cepe::cli {
namespace {

const std::string& template_of(const text::Tokenizer& tokenizer, const std::string& model_name) {
  if (!tokenizer.chat_template.empty()) return tokenizer.chat_template;
  throw base::Error(base::ErrorCode::invalid_argument,
                    "model '" + model_name +
                        "' has no chat template, so it was not trained to chat; choose an instruction-tuned model, or "
                        "let it continue a text (cepe generate without --chat)");
}

}  // namespace

ChatPrompt::ChatPrompt(const text::Tokenizer& tokenizer, const std::string& model_name)
    : tokenizer_(&tokenizer), template_(template_of(tokenizer, model_name)) {}

std::vector<text::Token> ChatPrompt::encode(const std::vector<text::ChatMessage>& messages) const {
  base::Json variables = base::Json::object();
  variables["bos_token"] = tokenizer_->bos ? tokenizer_->token_of(*tokenizer_->bos) : "";
  variables["eos_token"] = tokenizer_->eos ? tokenizer_->token_of(*tokenizer_->eos) : "";
  const text::RenderedChat chat = template_.render(messages, true, variables);
  // The template writes BOS itself where the model wants one.
  return tokenizer_->encode(chat.text,
                            {.add_special = false, .parse_special = true, .literal_mask = chat.literal_mask});
}

}  // namespace cepe::cli
