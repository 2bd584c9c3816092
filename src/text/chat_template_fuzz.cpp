// Templates come with models from strangers: whatever they hold ends in a rendering or a base::Error.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const cepe::base::Json messages = {{{"role", "system"}, {"content", "Be brief."}},
                                     {{"role", "user"}, {"content", " h\xc3\xa9llo, <|im_end|> "}},
                                     {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", {{{"name", "f"}}}}}};
  const cepe::base::Json variables = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"now", 0}};
  try {
    const cepe::text::ChatTemplate chat({reinterpret_cast<const char*>(data), size});
    const cepe::text::RenderedChat rendered = chat.render(messages, true, variables);
    if (rendered.text.size() != rendered.literal_mask.size()) std::abort();
  } catch (const cepe::base::Error&) {
  }
  return 0;
}
