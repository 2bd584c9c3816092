// Methods of strings and dictionaries, and the functions a template may call.
#include <algorithm>
#include <array>
#include <ctime>

#include "text/jinja/builtins.h"
#include "text/jinja/text_operations.h"

namespace cepe::text::jinja {
namespace {

constexpr std::array<std::string_view, 24> text_methods = {
    "strip", "lstrip",  "rstrip", "startswith", "endswith",     "split",        "rsplit",  "splitlines",
    "upper", "lower",   "title",  "capitalize", "replace",      "find",         "rfind",   "count",
    "join",  "isdigit", "index",  "isspace",    "removeprefix", "removesuffix", "isalpha", "format"};
constexpr std::array<std::string_view, 10> dict_methods = {"items", "keys",   "values", "get",        "copy",
                                                           "pop",   "update", "clear",  "setdefault", "popitem"};
constexpr std::array<std::string_view, 12> list_methods = {"index", "count",  "copy",  "append", "extend",  "insert",
                                                           "pop",   "remove", "clear", "sort",   "reverse", "add"};
constexpr std::array<std::string_view, 5> functions = {"range", "dict", "namespace", "raise_exception", "strftime_now"};

template <class Names>
bool among(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

size_t occurrences(const std::string& text, const std::string& wanted) {
  size_t count = 0;
  for (size_t at = find_in(text, wanted, 0); at != std::string::npos; at = find_in(text, wanted, at + wanted.size()))
    ++count;
  return count;
}

// Whether a character of white space may begin with this byte.
bool may_be_space(char byte) {
  const auto value = static_cast<unsigned char>(byte);
  return value <= ' ' || value == 0xc2 || (value >= 0xe1 && value <= 0xe3);
}

std::optional<std::string> optional_string(const Value* value, std::string_view what) {
  if (!value || value->is_none()) return std::nullopt;
  return expect_string(*value, what);
}

// Charges for `count` pieces before they are cut.
void charge_pieces(Context& context, size_t count) {
  context.budget.step(count);
  context.budget.allocate(count * (sizeof(Value) + 2 * sizeof(Text)));
}

Value list_of_texts(std::vector<Text> texts) {
  std::vector<Value> items;
  items.reserve(texts.size());
  for (Text& text : texts) items.emplace_back(std::move(text));
  return make_list(std::move(items));
}

// startswith and endswith take one string or a tuple of them.
bool begins_or_ends(const Text& self, bool begins, const Value& wanted) {
  if (const List* list = wanted.list()) {
    return std::any_of(list->items.begin(), list->items.end(),
                       [&](const Value& one) { return begins_or_ends(self, begins, one); });
  }
  const std::string text = expect_string(wanted, begins ? "startswith" : "endswith");
  return begins ? self.bytes.starts_with(text) : self.bytes.ends_with(text);
}

Value split_text(Context& context, const Text& self, const std::string& name, const Arguments& arguments) {
  arguments.check(name, 2, {"sep", "maxsplit"});
  const auto separator = optional_string(arguments.find(0, "sep"), name);
  if (separator && separator->empty()) fail("an empty separator for '" + name + "'");
  const Value* most = arguments.find(1, "maxsplit");
  const int64_t limit = most ? expect_integer(*most, name) : -1;
  charge_pieces(
      context,
      1 + (separator ? occurrences(self.bytes, *separator)
                     : static_cast<size_t>(std::count_if(self.bytes.begin(), self.bytes.end(), may_be_space))));
  if (name == "split" || (limit < 0 && !separator)) return list_of_texts(split(self, separator, limit));
  if (!separator) unsupported("'rsplit' at white space with a limit");
  // Looking backwards costs the product of both lengths at worst.
  context.budget.step(self.size() / 64 * std::min<size_t>(separator->size(), self.size()));
  return list_of_texts(split_from_right(self, *separator, limit));
}

Value join_texts(Context& context, const Text& separator, const Value& values) {
  Text result;
  bool first = true;
  for (const Value& value : iterate(values, context.budget)) {
    if (!value.text()) fail("'join' of a " + std::string(type_name(value)));
    context.budget.allocate(2 * (separator.size() + value.text()->size()));
    if (!first) result.append(separator);
    result.append(*value.text());
    first = false;
  }
  return Value(std::move(result));
}

Value search_text(Context& context, const Text& self, const std::string& name, const Arguments& arguments) {
  arguments.check(name, 1, {});
  if (arguments.positional.empty()) fail("'" + name + "' needs a string to look for");
  const std::string wanted = expect_string(arguments.positional[0], name);
  if (name == "count") {
    if (wanted.empty()) return Value(static_cast<int64_t>(count_characters(self.bytes)) + 1);
    return Value(static_cast<int64_t>(occurrences(self.bytes, wanted)));
  }
  if (name == "rfind") context.budget.step(self.size() / 64 * std::min(wanted.size(), self.size()));
  const size_t place = name == "rfind" ? self.bytes.rfind(wanted) : find_in(self.bytes, wanted, 0);
  if (place == std::string::npos && name == "index") fail("'index': the string is not there");
  if (place == std::string::npos) return Value(int64_t{-1});
  return Value(static_cast<int64_t>(count_characters(std::string_view(self.bytes).substr(0, place))));
}

Value replace_text(Context& context, const Text& self, const Arguments& arguments) {
  arguments.check("replace", 3, {"old", "new", "count"});
  const Value* from = arguments.find(0, "old");
  const Value* to = arguments.find(1, "new");
  const Value* most = arguments.find(2, "count");
  if (!from || !to) fail("'replace' needs what to replace and by what");
  if (!to->text()) fail("'replace' by a " + std::string(type_name(*to)));
  const std::string wanted = expect_string(*from, "replace");
  // Bound before the work: every place that could match takes a copy of the new text.
  const size_t places = self.size() / std::max<size_t>(1, wanted.size()) + 1;
  const size_t found = wanted.empty() ? places : occurrences(self.bytes, wanted);
  context.budget.step(places / 8);
  context.budget.allocate(2 * (self.size() + found * to->text()->size()));
  const int64_t limit = most && !most->is_none() ? expect_integer(*most, "replace") : -1;
  return Value(replace(self, wanted, *to->text(), limit));
}

bool every_byte(const Text& text, bool (*holds)(char)) {
  return text.size() > 0 && std::all_of(text.bytes.begin(), text.bytes.end(), holds);
}

Value call_text_method(Context& context, const Text& self, const std::string& name, const Arguments& arguments) {
  const auto& given = arguments.positional;
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    arguments.check(name, 1, {});
    const Side side = name == "strip" ? Side::both : name == "lstrip" ? Side::left : Side::right;
    const auto characters = optional_string(arguments.find(0, "chars"), name);
    context.budget.step(characters ? self.size() / 64 * characters->size() : 0);
    return Value(strip(self, side, characters));
  }
  if (name == "startswith" || name == "endswith") {
    arguments.check(name, 1, {});
    if (given.empty()) fail("'" + name + "' needs a string");
    return Value(begins_or_ends(self, name == "startswith", given[0]));
  }
  if (name == "split" || name == "rsplit") return split_text(context, self, name, arguments);
  if (name == "splitlines") {
    arguments.check(name, 1, {"keepends"});
    const Value* keep = arguments.find(0, "keepends");
    charge_pieces(context, 1 + static_cast<size_t>(std::count(self.bytes.begin(), self.bytes.end(), '\n') +
                                                   std::count(self.bytes.begin(), self.bytes.end(), '\r')));
    return list_of_texts(split_lines(self, keep && truth(*keep)));
  }
  if (name == "replace") return replace_text(context, self, arguments);
  if (name == "find" || name == "rfind" || name == "index" || name == "count") {
    return search_text(context, self, name, arguments);
  }
  if (name == "join" || name == "removeprefix" || name == "removesuffix") {
    arguments.check(name, 1, {});
    if (given.empty()) fail("'" + name + "' needs an argument");
    if (name == "join") return join_texts(context, self, given[0]);
    const std::string end = expect_string(given[0], name);
    if (name == "removeprefix") {
      return Value(self.bytes.starts_with(end) ? self.part(end.size(), self.size()) : self);
    }
    return Value(self.bytes.ends_with(end) ? self.part(0, self.size() - end.size()) : self);
  }
  if (name == "format" || name == "isalpha") unsupported("the method '" + name + "' of a string");
  arguments.check(name, 0, {});
  if (name == "upper") return Value(change_case(self, Case::upper));
  if (name == "lower") return Value(change_case(self, Case::lower));
  if (name == "title") return Value(change_case(self, Case::title));
  if (name == "capitalize") return Value(change_case(self, Case::capital));
  if (name == "isdigit") return Value(every_byte(self, [](char byte) { return byte >= '0' && byte <= '9'; }));
  return Value(self.size() > 0 && strip(self, Side::both, std::nullopt).size() == 0);  // isspace
}

Value call_dict_method(Context& context, const Dict& self, const Value& itself, const std::string& name,
                       const Arguments& arguments) {
  if (name == "get") {
    arguments.check(name, 2, {});
    if (arguments.positional.empty()) fail("'get' needs a key");
    if (const Value* found = self.find(arguments.positional[0])) return *found;
    return arguments.positional.size() > 1 ? arguments.positional[1] : Value(None{});
  }
  if (name != "items" && name != "keys" && name != "values" && name != "copy") {
    unsupported("the method '" + name + "' of a dictionary");
  }
  arguments.check(name, 0, {});
  if (name == "copy") return itself;
  context.budget.step(self.items.size());
  context.budget.allocate(self.items.size() * (3 * sizeof(Value) + sizeof(List)));
  std::vector<Value> items;
  for (const auto& [key, value] : self.items) {
    items.push_back(name == "keys" ? key : name == "values" ? value : make_list({key, value}, true));
  }
  return make_list(std::move(items));
}

Value call_list_method(Context& context, const List& self, const Value& itself, const std::string& name,
                       const Arguments& arguments) {
  if (name == "copy") return itself;
  if (name != "index" && name != "count") unsupported("the method '" + name + "' of a list");
  arguments.check(name, 1, {});
  if (arguments.positional.empty()) fail("'" + name + "' needs an item");
  int64_t count = 0;
  for (size_t i = 0; i < self.items.size(); ++i) {
    if (!equal(self.items[i], arguments.positional[0], context.budget)) continue;
    if (name == "index") return Value(static_cast<int64_t>(i));
    ++count;
  }
  if (name == "index") fail("'index': the item is not in the list");
  return Value(count);
}

Value range(Context& context, const Arguments& arguments) {
  arguments.check("range", 3, {});
  const auto& given = arguments.positional;
  if (given.empty()) fail("'range' needs an end");
  const int64_t start = given.size() > 1 ? expect_integer(given[0], "range") : 0;
  const int64_t stop = expect_integer(given[given.size() > 1 ? 1 : 0], "range");
  const int64_t step = given.size() > 2 ? expect_integer(given[2], "range") : 1;
  if (step == 0) fail("'range' with a step of 0");
  std::vector<Value> items;
  for (int64_t at = start; step > 0 ? at < stop : at > stop;) {
    context.budget.step();
    context.budget.allocate(sizeof(Value));
    items.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return make_list(std::move(items));
}

Value formatted_time(const Context& context, const Arguments& arguments) {
  arguments.check("strftime_now", 1, {"format"});
  const Value* format = arguments.find(0, "format");
  if (!format) fail("'strftime_now' needs a format");
  const std::string text = expect_string(*format, "strftime_now");
  const std::time_t now = context.now ? static_cast<std::time_t>(*context.now) : std::time(nullptr);
  std::tm parts{};
  if (!(context.now ? ::gmtime_r(&now, &parts) : ::localtime_r(&now, &parts))) fail("'now' is no time of a calendar");
  std::array<char, 1024> buffer{};
  const size_t size = text.empty() ? 0 : std::strftime(buffer.data(), buffer.size(), text.c_str(), &parts);
  return make_text({buffer.data(), size});
}

Value make_namespace(Context& context, const Arguments& arguments) {
  auto made = std::make_shared<Namespace>();
  context.budget.allocate(sizeof(Namespace) + 128 * arguments.named.size());
  context.namespaces.push_back(made);
  arguments.check("namespace", 1, {"*"});
  if (!arguments.positional.empty()) {
    const Dict* dict = arguments.positional[0].dict();
    if (!dict) fail("'namespace' of a " + std::string(type_name(arguments.positional[0])));
    context.budget.allocate(128 * dict->items.size());
    for (const auto& [key, value] : dict->items) made->fields[expect_string(key, "namespace")] = value;
  }
  for (const auto& [name, value] : arguments.named) made->fields[name] = value;
  return Value(std::move(made));
}

Value make_dictionary(Context& context, const Arguments& arguments) {
  arguments.check("dict", 1, {"*"});
  Dict dict;
  if (!arguments.positional.empty()) {
    const Value& given = arguments.positional[0];
    if (const Dict* other = given.dict()) {
      context.budget.allocate(128 * other->items.size());
      for (const auto& [key, value] : other->items) dict.put(key, value);
    } else {
      for (const Value& pair : iterate(given, context.budget)) {
        if (!pair.list() || pair.list()->items.size() != 2) fail("'dict' of something else than pairs");
        context.budget.allocate(128);
        dict.put(pair.list()->items[0], pair.list()->items[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) dict.put(make_text(name), value);
  return make_dict(std::move(dict));
}

}  // namespace

bool is_method(const Value& self, std::string_view name) {
  return (self.text() && among(text_methods, name)) || (self.dict() && among(dict_methods, name)) ||
         (self.list() && among(list_methods, name));
}

Value call_method(Context& context, const Callable& method, const Arguments& arguments) {
  const Value& self = method.self;
  context.budget.step(1 + extent(self) / 64);
  if (const Text* text = self.text()) {
    context.budget.allocate(2 * text->size());
    return call_text_method(context, *text, method.name, arguments);
  }
  if (const Dict* dict = self.dict()) return call_dict_method(context, *dict, self, method.name, arguments);
  return call_list_method(context, *self.list(), self, method.name, arguments);
}

bool is_function(std::string_view name) { return among(functions, name); }

Value call_function(Context& context, std::string_view name, const Arguments& arguments) {
  context.budget.step();
  if (name == "range") return range(context, arguments);
  if (name == "namespace") return make_namespace(context, arguments);
  if (name == "dict") return make_dictionary(context, arguments);
  if (name == "strftime_now") return formatted_time(context, arguments);
  arguments.check(name, 1, {"message"});
  const Value* message = arguments.find(0, "message");
  fail(message ? to_text(*message, context.budget).bytes : "the template refuses these messages");
}

}  // namespace cepe::text::jinja
