// Chat templates: the part of Jinja2 that models' templates use, interpreted. What it cannot do is an error that names
// the construct. Every output byte knows whether it came from a message: those never become special tokens.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace cepe::text {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", "tool"
  std::string content;
};

struct RenderedChat {
  std::string text;
  std::string
      literal_mask;  // text.size() bytes; 1 where the byte comes from a message's content (EncodeOptions::literal_mask)
};

class ChatTemplate {
 public:
  // Parses the source. Errors: corrupt (syntax, with line) or unsupported (names the construct and its line).
  explicit ChatTemplate(std::string_view source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // Renders. `variables` (an object) holds what else the template may read: bos_token, eos_token, tools,
  // enable_thinking... Errors: invalid_argument where the template calls raise_exception (with its text); unsupported;
  // bounded work and output.
  RenderedChat render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                      const base::Json& variables) const;
  // The same with messages as JSON (array of objects; content may be a string or null; tool_calls... pass through).
  RenderedChat render(const base::Json& messages, bool add_generation_prompt, const base::Json& variables) const;

 private:
  struct Program;
  std::unique_ptr<Program> program_;
};

}  // namespace cepe::text
