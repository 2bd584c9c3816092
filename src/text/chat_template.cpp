#include "text/chat_template.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/syntax.h"

namespace cepe::text {
namespace {

using jinja::Value;

constexpr int max_json_depth = 90;

// Which strings of a JSON value a stranger may have written.
enum class Origin { ours, message, nested };  // nested: those inside objects only

template <class AnyJson>
class Converter {
 public:
  explicit Converter(jinja::Budget& budget) : budget_(budget) {}

  Value convert(const AnyJson& json, Origin origin, int depth = 0) {
    if (depth > max_json_depth)
      jinja::unsupported("JSON nested deeper than " + std::to_string(max_json_depth) + " levels");
    budget_.step();
    budget_.allocate(sizeof(Value));
    if (json.is_string()) return text(json.template get_ref<const std::string&>(), origin == Origin::message);
    if (json.is_boolean()) return Value(json.template get<bool>());
    if (json.is_number_unsigned() && json.template get<uint64_t>() > uint64_t{INT64_MAX}) {
      return Value(json.template get<double>());
    }
    if (json.is_number_integer()) return Value(json.template get<int64_t>());
    if (json.is_number_float()) return Value(json.template get<double>());
    if (json.is_array()) return list(json, origin, depth);
    if (json.is_object()) return dict(json, origin == Origin::nested ? Origin::message : origin, depth);
    return Value(jinja::None{});
  }

  // The messages: everything in them is literal but a role that is a plain word.
  Value messages(const AnyJson& json) {
    if (!json.is_array()) jinja::fail("messages must be an array of objects");
    std::vector<Value> items;
    for (const auto& message : json) {
      if (!message.is_object()) jinja::fail("messages must be an array of objects");
      jinja::Dict dict;
      for (const auto& [key, value] : message.items()) {
        const bool role = key == "role" && value.is_string() && is_word(value.template get_ref<const std::string&>());
        dict.put(text(key, true), convert(value, role ? Origin::ours : Origin::message, 1));
      }
      items.push_back(jinja::make_dict(std::move(dict)));
    }
    return jinja::make_list(std::move(items));
  }

 private:
  // What can spell no special token, whatever the model.
  static bool is_word(const std::string& role) {
    return std::all_of(role.begin(), role.end(), [](char byte) {
      return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
             byte == '_' || byte == '-';
    });
  }

  Value text(const std::string& bytes, bool literal) {
    budget_.allocate(2 * bytes.size());
    return Value(jinja::Text(bytes, literal));
  }

  Value list(const AnyJson& json, Origin origin, int depth) {
    std::vector<Value> items;
    for (const auto& item : json) items.push_back(convert(item, origin, depth + 1));
    return jinja::make_list(std::move(items));
  }

  Value dict(const AnyJson& json, Origin origin, int depth) {
    jinja::Dict dict;
    for (const auto& [key, value] : json.items()) {
      budget_.allocate(128);
      dict.put(text(key, origin == Origin::message), convert(value, origin, depth + 1));
    }
    return jinja::make_dict(std::move(dict));
  }

  jinja::Budget& budget_;
};

[[noreturn]] void rethrow(const base::Error& error, const std::string& where) {
  throw base::Error(error.code(), "chat template" + where + ": " + error.what());
}

template <class AnyJson>
void define_variables(jinja::Interpreter& interpreter, const AnyJson& messages, bool add_generation_prompt,
                      const AnyJson& variables) {
  Converter<AnyJson> converter(interpreter.context().budget);
  if (!variables.is_object() && !variables.is_null()) jinja::fail("the variables must be an object");
  if (variables.is_object()) {
    for (const auto& [name, value] : variables.items())
      interpreter.define(name, converter.convert(value, Origin::nested));
    if (variables.contains("now")) {
      if (!variables["now"].is_number_integer()) jinja::fail("the variable 'now' must be an integer");
      interpreter.context().now = variables["now"].template get<int64_t>();
    }
  }
  interpreter.define("messages", converter.messages(messages));
  interpreter.define("add_generation_prompt", Value(add_generation_prompt));
}

template <class AnyJson>
RenderedChat render_with(const jinja::Body& body, const AnyJson& messages, bool add_generation_prompt,
                         const AnyJson& variables) {
  const jinja::Limits limits;
  jinja::Interpreter interpreter({jinja::Budget(limits.steps, limits.bytes), std::nullopt, {}}, limits);
  try {
    define_variables(interpreter, messages, add_generation_prompt, variables);
  } catch (const base::Error& error) {
    rethrow(error, "");
  }
  try {
    jinja::Text text = interpreter.render(body);
    return {std::move(text.bytes), std::move(text.mask)};
  } catch (const base::Error& error) {
    rethrow(error, ", line " + std::to_string(interpreter.line()));
  }
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::string_view source)
    : program_(std::make_unique<Program>(Program{jinja::parse(source)})) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

RenderedChat ChatTemplate::render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                                  const base::Json& variables) const {
  base::Json json = base::Json::array();
  for (const ChatMessage& message : messages) json.push_back({{"role", message.role}, {"content", message.content}});
  return render(json, add_generation_prompt, variables);
}

RenderedChat ChatTemplate::render(const base::Json& messages, bool add_generation_prompt,
                                  const base::Json& variables) const {
  return render_with(program_->body, messages, add_generation_prompt, variables);
}

RenderedChat ChatTemplate::render(const OrderedJson& messages, bool add_generation_prompt,
                                  const OrderedJson& variables) const {
  return render_with(program_->body, messages, add_generation_prompt, variables);
}

}  // namespace cepe::text
