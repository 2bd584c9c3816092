// The filters behind `|`.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "text/jinja/builtins.h"
#include "text/jinja/text_operations.h"

namespace cepe::text::jinja {
namespace {

using Filter = Value (*)(Context&, const Value&, const Arguments&);

struct Entry {
  std::string_view name;
  Filter apply;
};

Text as_text(Context& context, const Value& value) {
  context.budget.allocate(2 * extent(value));
  return to_text(value, context.budget);
}

Value through_method(Context& context, const char* method, const Value& input, const Arguments& arguments) {
  return call_method(context, Callable{Callable::Kind::method, method, Value(as_text(context, input)), nullptr, {}},
                     arguments);
}

Value trim(Context& context, const Value& input, const Arguments& arguments) {
  arguments.check("trim", 1, {"chars"});
  Arguments characters;
  if (const Value* given = arguments.find(0, "chars")) characters.positional.push_back(*given);
  return through_method(context, "strip", input, characters);
}

Value length(Context&, const Value& input, const Arguments&) {
  if (input.text()) return Value(static_cast<int64_t>(count_characters(input.text()->bytes)));
  if (!input.list() && !input.dict() && !input.is_undefined()) {
    fail("'length' of a " + std::string(type_name(input)));
  }
  return Value(static_cast<int64_t>(extent(input)));
}

Value replace_filter(Context& context, const Value& input, const Arguments& arguments) {
  return through_method(context, "replace", input, arguments);
}

// The attribute that map(attribute=...), sort(attribute=...), join(attribute=...) ask for: a path with dots.
Value deep_attribute(Context& context, Value value, const Value& path) {
  if (path.is_integer()) return item_of(context, value, path);
  const std::string text = expect_string(path, "attribute");
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('.', begin), text.size());
    const std::string name = text.substr(begin, end - begin);
    int64_t index = 0;
    const auto number = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool is_index = !name.empty() && number.ec == std::errc() && number.ptr == name.data() + name.size();
    value = item_of(context, value, is_index ? Value(index) : make_text(name));
    begin = end + 1;
  }
  return value;
}

Value join(Context& context, const Value& input, const Arguments& arguments) {
  arguments.check("join", 2, {"d", "attribute"});
  const Value* separator = arguments.find(0, "d");
  const Value* attribute = arguments.find(1, "attribute");
  const Text between = separator ? as_text(context, *separator) : Text();
  Text result;
  bool first = true;
  for (const Value& item : iterate(input, context.budget)) {
    context.budget.step();
    const Text text = as_text(context, attribute ? deep_attribute(context, item, *attribute) : item);
    context.budget.allocate(2 * (between.size() + text.size()));
    if (!first) result.append(between);
    result.append(text);
    first = false;
  }
  return Value(std::move(result));
}

Value list(Context& context, const Value& input, const Arguments&) { return make_list(iterate(input, context.budget)); }

Value first(Context& context, const Value& input, const Arguments&) {
  const auto items = iterate(input, context.budget);
  return items.empty() ? undefined("the first item of an empty sequence") : items.front();
}

Value last(Context& context, const Value& input, const Arguments&) {
  const auto items = iterate(input, context.budget);
  return items.empty() ? undefined("the last item of an empty sequence") : items.back();
}

Value otherwise(Context&, const Value& input, const Arguments& arguments) {
  arguments.check("default", 2, {"default_value", "boolean"});
  const Value* value = arguments.find(0, "default_value");
  const Value* boolean = arguments.find(1, "boolean");
  const bool missing = input.is_undefined() || (boolean && truth(*boolean) && !truth(input));
  if (!missing) return input;
  return value ? *value : make_text("");
}

Value items(Context& context, const Value& input, const Arguments&) {
  if (input.is_undefined()) return make_list({});
  if (!input.dict()) fail("'items' of a " + std::string(type_name(input)));
  return call_method(context, Callable{Callable::Kind::method, "items", input, nullptr, {}}, {});
}

Arguments rest_of(const Arguments& arguments, size_t begin) {
  Arguments rest;
  for (size_t i = begin; i < arguments.positional.size(); ++i) rest.positional.push_back(arguments.positional[i]);
  return rest;
}

Value map(Context& context, const Value& input, const Arguments& arguments) {
  const Value* attribute = arguments.find(~size_t{0}, "attribute");
  const Value* missing = arguments.find(~size_t{0}, "default");
  std::string filter;
  if (!attribute) {
    if (arguments.positional.empty()) fail("'map' needs a filter or an attribute");
    filter = expect_string(arguments.positional[0], "map");
    if (!is_filter(filter)) unsupported("filter '" + filter + "'");
  }
  std::vector<Value> results;
  for (const Value& item : iterate(input, context.budget)) {
    context.budget.step();
    if (attribute) {
      Value value = deep_attribute(context, item, *attribute);
      results.push_back(value.is_undefined() && missing ? *missing : std::move(value));
    } else {
      results.push_back(apply_filter(context, filter, item, rest_of(arguments, 1)));
    }
  }
  return make_list(std::move(results));
}

Value filtered(Context& context, const Value& input, const Arguments& arguments, bool by_attribute, bool wanted) {
  const size_t skipped = by_attribute ? 1 : 0;
  if (arguments.positional.size() < skipped) fail("'selectattr' needs an attribute");
  std::string test;
  if (arguments.positional.size() > skipped) {
    test = expect_string(arguments.positional[skipped], "select");
    if (!is_test(test)) unsupported("test '" + test + "'");
  }
  std::vector<Value> results;
  for (const Value& item : iterate(input, context.budget)) {
    context.budget.step();
    const Value subject = by_attribute ? deep_attribute(context, item, arguments.positional[0]) : item;
    const bool holds =
        test.empty() ? truth(subject) : apply_test(context, test, subject, rest_of(arguments, skipped + 1));
    if (holds == wanted) results.push_back(item);
  }
  return make_list(std::move(results));
}

Value to_integer(Context& context, const Value& input, const Arguments& arguments) {
  arguments.check("int", 2, {"default", "base"});
  const Value* fallback = arguments.find(0, "default");
  const Value missing = fallback ? *fallback : Value(int64_t{0});
  double number = 0;
  if (input.is_integer()) return Value(input.integer());
  if (const Text* text = input.text()) {
    context.budget.step(text->size() / 64);
    const Text digits = strip(*text, Side::both, std::nullopt);
    const char* end = digits.bytes.data() + digits.size();
    int64_t whole = 0;
    const auto result = std::from_chars(digits.bytes.data(), end, whole);
    if (result.ec == std::errc() && result.ptr == end) return Value(whole);
    const auto fraction = std::from_chars(digits.bytes.data(), end, number);
    if (fraction.ec != std::errc() || fraction.ptr != end) return missing;
  } else if (input.is<double>()) {
    number = input.number();
  } else {
    return missing;
  }
  if (!(std::abs(number) < 9e18)) return missing;
  return Value(static_cast<int64_t>(number));
}

Value to_number(Context&, const Value& input, const Arguments& arguments) {
  arguments.check("float", 1, {"default"});
  const Value* fallback = arguments.find(0, "default");
  if (input.is_number()) return Value(input.number());
  if (const Text* text = input.text()) {
    const Text digits = strip(*text, Side::both, std::nullopt);
    double number = 0;
    const char* end = digits.bytes.data() + digits.size();
    const auto result = std::from_chars(digits.bytes.data(), end, number);
    if (result.ec == std::errc() && result.ptr == end) return Value(number);
  }
  return fallback ? *fallback : Value(0.0);
}

Value indent_filter(Context& context, const Value& input, const Arguments& arguments) {
  arguments.check("indent", 3, {"width", "first", "blank"});
  const Value* width = arguments.find(0, "width");
  const Value* is_first = arguments.find(1, "first");
  const Value* blank = arguments.find(2, "blank");
  Text indentation("    ");
  if (width && width->text()) {
    indentation = *width->text();
  } else if (width) {
    indentation =
        Text(std::string(static_cast<size_t>(std::clamp<int64_t>(expect_integer(*width, "indent"), 0, 4096)), ' '));
  }
  const Text text = as_text(context, input);
  const auto lines = static_cast<size_t>(std::count(text.bytes.begin(), text.bytes.end(), '\n')) + 1;
  context.budget.allocate(2 * (text.size() + lines * indentation.size()));
  return Value(indent(text, indentation, is_first && truth(*is_first), blank && truth(*blank)));
}

// Sorting without regard to case, as Jinja's sort and dictsort do by default.
Value folded(Context& context, const Value& key, bool case_sensitive) {
  if (!key.text() || case_sensitive) return key;
  context.budget.allocate(2 * key.text()->size());
  return Value(change_case(*key.text(), Case::lower));
}

std::vector<Value> sorted(Context& context, std::vector<Value> values, const std::vector<Value>& keys, bool reverse) {
  std::vector<size_t> order(values.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reverse ? compare(keys[b], keys[a], context.budget) < 0 : compare(keys[a], keys[b], context.budget) < 0;
  });
  std::vector<Value> result;
  for (const size_t place : order) result.push_back(values[place]);
  return result;
}

Value sort(Context& context, const Value& input, const Arguments& arguments) {
  arguments.check("sort", 3, {"reverse", "case_sensitive", "attribute"});
  const Value* reverse = arguments.find(0, "reverse");
  const Value* sensitive = arguments.find(1, "case_sensitive");
  const Value* attribute = arguments.find(2, "attribute");
  std::vector<Value> values = iterate(input, context.budget), keys;
  for (const Value& value : values) {
    const Value key = attribute ? deep_attribute(context, value, *attribute) : value;
    keys.push_back(folded(context, key, sensitive && truth(*sensitive)));
  }
  return make_list(sorted(context, std::move(values), keys, reverse && truth(*reverse)));
}

Value dictsort(Context& context, const Value& input, const Arguments& arguments) {
  arguments.check("dictsort", 3, {"case_sensitive", "by", "reverse"});
  const Value* sensitive = arguments.find(0, "case_sensitive");
  const Value* by = arguments.find(1, "by");
  const Value* reverse = arguments.find(2, "reverse");
  const std::string side = by ? expect_string(*by, "dictsort") : "key";
  if (side != "key" && side != "value") fail("'dictsort' by '" + side.substr(0, 40) + "'; 'key' and 'value' exist");
  const Value pairs = items(context, input, {});
  std::vector<Value> keys;
  for (const Value& pair : pairs.list()->items) {
    keys.push_back(folded(context, pair.list()->items[side == "key" ? 0 : 1], sensitive && truth(*sensitive)));
  }
  return make_list(sorted(context, pairs.list()->items, keys, reverse && truth(*reverse)));
}

Value unique(Context& context, const Value& input, const Arguments& arguments) {
  arguments.check("unique", 2, {"case_sensitive", "attribute"});
  const Value* sensitive = arguments.find(0, "case_sensitive");
  const Value* attribute = arguments.find(1, "attribute");
  Dict seen;
  std::vector<Value> results;
  for (const Value& value : iterate(input, context.budget)) {
    const Value key =
        folded(context, attribute ? deep_attribute(context, value, *attribute) : value, sensitive && truth(*sensitive));
    if (seen.find(key)) continue;
    context.budget.allocate(256 + extent(key));
    seen.put(key, Value(None{}));
    results.push_back(value);
  }
  return make_list(std::move(results));
}

Value reverse(Context& context, const Value& input, const Arguments&) {
  if (input.text()) return slice_of(context, input, std::nullopt, std::nullopt, -1);
  std::vector<Value> values = iterate(input, context.budget);
  std::reverse(values.begin(), values.end());
  return make_list(std::move(values));
}

Value sum(Context& context, const Value& input, const Arguments& arguments) {
  arguments.check("sum", 2, {"attribute", "start"});
  const Value* attribute = arguments.find(0, "attribute");
  const Value* start = arguments.find(1, "start");
  Value total = start ? *start : Value(int64_t{0});
  for (const Value& value : iterate(input, context.budget)) {
    const bool whole = !attribute || attribute->is_none();
    total = operate(context, "+", total, whole ? value : deep_attribute(context, value, *attribute));
  }
  return total;
}

Value extreme(Context& context, const Value& input, int sign) {
  Value best = undefined("the extreme of an empty sequence");
  for (const Value& value : iterate(input, context.budget)) {
    if (best.is_undefined() || compare(value, best, context.budget) * sign > 0) best = value;
  }
  return best;
}

Value absolute(Context& context, const Value& input, const Arguments&) {
  if (input.is<double>()) return Value(std::abs(input.number()));
  const int64_t number = expect_integer(input, "abs");
  return number < 0 ? operate(context, "-", Value(int64_t{0}), Value(number)) : Value(number);
}

Value round(Context&, const Value& input, const Arguments& arguments) {
  arguments.check("round", 1, {"precision"});
  if (!input.is_number()) fail("'round' of a " + std::string(type_name(input)));
  const Value* precision = arguments.find(0, "precision");
  const auto digits = precision ? std::clamp<int64_t>(expect_integer(*precision, "round"), -300, 300) : 0;
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double scaled = std::nearbyint(input.number() * scale);
  return Value(std::isfinite(scaled) ? scaled / scale : input.number());
}

Value string(Context& context, const Value& input, const Arguments&) {
  return input.text() ? input : Value(as_text(context, input));
}

Value escape(Context& context, const Value& input, const Arguments&) {
  const Text text = as_text(context, input);
  context.budget.allocate(10 * text.size());
  return Value(escape_html(text));
}

constexpr std::array<Entry, 38> table = {{
    {"trim", trim},
    {"tojson", [](Context& c, const Value& v, const Arguments& a) { return Value(to_json(c, v, a)); }},
    {"length", length},
    {"count", length},
    {"upper", [](Context& c, const Value& v, const Arguments& a) { return through_method(c, "upper", v, a); }},
    {"lower", [](Context& c, const Value& v, const Arguments& a) { return through_method(c, "lower", v, a); }},
    {"title", [](Context& c, const Value& v, const Arguments& a) { return through_method(c, "title", v, a); }},
    {"capitalize",
     [](Context& c, const Value& v, const Arguments& a) { return through_method(c, "capitalize", v, a); }},
    {"replace", replace_filter},
    {"join", join},
    {"list", list},
    {"first", first},
    {"last", last},
    {"default", otherwise},
    {"d", otherwise},
    {"items", items},
    {"map", map},
    {"select", [](Context& c, const Value& v, const Arguments& a) { return filtered(c, v, a, false, true); }},
    {"reject", [](Context& c, const Value& v, const Arguments& a) { return filtered(c, v, a, false, false); }},
    {"selectattr", [](Context& c, const Value& v, const Arguments& a) { return filtered(c, v, a, true, true); }},
    {"rejectattr", [](Context& c, const Value& v, const Arguments& a) { return filtered(c, v, a, true, false); }},
    {"string", string},
    {"safe", string},
    {"int", to_integer},
    {"float", to_number},
    {"indent", indent_filter},
    {"sort", sort},
    {"dictsort", dictsort},
    {"unique", unique},
    {"reverse", reverse},
    {"sum", sum},
    {"min", [](Context& c, const Value& v, const Arguments&) { return extreme(c, v, -1); }},
    {"max", [](Context& c, const Value& v, const Arguments&) { return extreme(c, v, 1); }},
    {"abs", absolute},
    {"round", round},
    {"escape", escape},
    {"e", escape},
    {"attr",
     [](Context& c, const Value& v, const Arguments& a) {
       if (a.positional.empty()) fail("'attr' needs a name");
       return attribute_of(c, v, expect_string(a.positional[0], "attr"));
     }},
}};

const Entry* find_filter(std::string_view name) {
  const auto entry = std::find_if(table.begin(), table.end(), [&](const Entry& one) { return one.name == name; });
  return entry == table.end() ? nullptr : &*entry;
}

}  // namespace

const Value* Arguments::find(size_t place, std::string_view name) const {
  if (place < positional.size()) return &positional[place];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Arguments::check(std::string_view callee, size_t most, std::initializer_list<std::string_view> names) const {
  if (positional.size() > most) {
    fail("'" + std::string(callee) + "' takes at most " + std::to_string(most) + " arguments, not " +
         std::to_string(positional.size()));
  }
  for (const auto& [name, value] : named) {
    const bool known =
        std::any_of(names.begin(), names.end(), [&key = name](auto one) { return one == "*" || one == key; });
    if (!known) unsupported("argument '" + name.substr(0, 40) + "' of '" + std::string(callee) + "'");
  }
}

bool is_filter(std::string_view name) { return find_filter(name) != nullptr; }

Value apply_filter(Context& context, std::string_view name, const Value& input, const Arguments& arguments) {
  context.budget.step(1 + extent(input) / 64);
  return find_filter(name)->apply(context, input, arguments);
}

std::string expect_string(const Value& value, std::string_view what) {
  if (const Text* text = value.text()) return text->bytes;
  fail("'" + std::string(what) + "' needs a string, not a " + std::string(type_name(value)));
}

int64_t expect_integer(const Value& value, std::string_view what) {
  if (value.is_integer()) return value.integer();
  fail("'" + std::string(what) + "' needs an integer, not a " + std::string(type_name(value)));
}

}  // namespace cepe::text::jinja
