// Chat templates: the part of Jinja2 that models' templates use, interpreted. What it cannot do is an error that names
// the construct. Every output byte knows whether it came from a message: those never become special tokens.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace cepe::text {

// JSON that keeps the order of its keys (base::parse_ordered_json).
using base::OrderedJson;

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
  // enable_thinking... Its strings count as the server's own, but for those inside objects (tools, documents): whoever
  // sends those must not spell special tokens either. `now` (seconds since 1970) is the date strftime_now formats, in
  // UTC; without it the clock's, in local time. Errors: invalid_argument where the template calls raise_exception (with
  // its text) or the messages do not fit it; unsupported (constructs; more than 10 million steps, 64 MiB of output or
  // 512 MiB of work); each with the line.
  RenderedChat render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                      const base::Json& variables) const;
  // The same with messages as JSON (array of objects; content may be a string or null; tool_calls... pass through). All
  // strings in them are literal but the role, and the role too where it is more than a plain word.
  RenderedChat render(const base::Json& messages, bool add_generation_prompt, const base::Json& variables) const;
  // The same in the order of keys in which the caller wrote tools and arguments, as the model saw them in training.
  RenderedChat render(const OrderedJson& messages, bool add_generation_prompt, const OrderedJson& variables) const;

 private:
  struct Program;
  std::unique_ptr<Program> program_;
};

}  // namespace cepe::text
