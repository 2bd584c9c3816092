#include "text/jinja/value.h"

#include <cmath>

#include "base/error.h"
#include "text/jinja/text_operations.h"

namespace cepe::text::jinja {
namespace {

constexpr int max_nesting = 100;

int nesting_of(const Value& value) {
  if (const List* list = value.list()) return list->nesting;
  if (const Dict* dict = value.dict()) return dict->nesting;
  if (const Callable* callable = value.callable()) return 1 + nesting_of(callable->self);
  return 0;
}

int nest(int nesting, const Value& child) {
  const int deeper = std::max(nesting, 1 + nesting_of(child));
  if (deeper > max_nesting) unsupported("values nested deeper than " + std::to_string(max_nesting) + " levels");
  return deeper;
}

// Equal keys have equal names, whatever their type (1, 1.0 and true are one key).
std::string key_of(const Value& key) {
  if (const Text* text = key.text()) return "s" + text->bytes;
  if (key.is_integer()) return "i" + std::to_string(key.integer());
  if (key.is_none()) return "n";
  if (key.is<double>()) {
    const double number = key.number();
    if (std::abs(number) < 9e15 && number == std::floor(number)) {
      return "i" + std::to_string(static_cast<int64_t>(number));
    }
    return "f" + format_number(number);
  }
  fail("a " + std::string(type_name(key)) + " cannot be the key of a dictionary");
}

bool equal_lists(const List& a, const List& b, Budget& budget) {
  if (a.tuple != b.tuple || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!equal(a.items[i], b.items[i], budget)) return false;
  }
  return true;
}

bool equal_dicts(const Dict& a, const Dict& b, Budget& budget) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    const Value* other = b.find(key);
    if (!other || !equal(value, *other, budget)) return false;
  }
  return true;
}

void print(Text& out, const Value& value, bool quoted, Budget& budget);

void print_list(Text& out, const List& list, Budget& budget) {
  out.append(list.tuple ? "(" : "[");
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i) out.append(", ");
    print(out, list.items[i], true, budget);
  }
  if (list.tuple && list.items.size() == 1) out.append(",");
  out.append(list.tuple ? ")" : "]");
}

void print_dict(Text& out, const Dict& dict, Budget& budget) {
  out.append("{");
  for (size_t i = 0; i < dict.items.size(); ++i) {
    if (i) out.append(", ");
    print(out, dict.items[i].first, true, budget);
    out.append(": ");
    print(out, dict.items[i].second, true, budget);
  }
  out.append("}");
}

void print(Text& out, const Value& value, bool quoted, Budget& budget) {
  budget.step();
  const size_t before = out.size();
  if (const Text* text = value.text()) {
    if (quoted) {
      append_quoted(out, *text);
    } else {
      out.append(*text);
    }
  } else if (value.is<bool>()) {
    out.append(std::get<bool>(value.data) ? "True" : "False");
  } else if (value.is<int64_t>()) {
    out.append(std::to_string(value.integer()));
  } else if (value.is<double>()) {
    out.append(format_number(value.number()));
  } else if (value.is_none()) {
    out.append("None");
  } else if (const List* list = value.list()) {
    print_list(out, *list, budget);
  } else if (const Dict* dict = value.dict()) {
    print_dict(out, *dict, budget);
  } else if (value.is_undefined()) {
    if (quoted) out.append("Undefined");
  } else {
    unsupported("printing a " + std::string(type_name(value)));
  }
  if (!value.list() && !value.dict()) budget.allocate(2 * (out.size() - before));
}

}  // namespace

void fail(const std::string& message) { throw base::Error(base::ErrorCode::invalid_argument, message); }
void unsupported(const std::string& message) { throw base::Error(base::ErrorCode::unsupported, message); }

void Text::append(const Text& other) {
  bytes += other.bytes;
  mask += other.mask;
}

void Text::append(std::string_view plain, char from_message) {
  bytes += plain;
  mask.append(plain.size(), from_message);
}

Text Text::part(size_t begin, size_t end) const {
  Text result;
  result.bytes = bytes.substr(begin, end - begin);
  result.mask = mask.substr(begin, end - begin);
  return result;
}

void Budget::step(size_t count) {
  if (count > static_cast<size_t>(steps_)) unsupported("more work than a chat template may cause");
  steps_ -= static_cast<int64_t>(count);
}

void Budget::allocate(size_t bytes) {
  if (bytes > static_cast<size_t>(bytes_)) unsupported("more memory than a chat template may use");
  bytes_ -= static_cast<int64_t>(bytes);
}

const Value* Dict::find(const Value& key) const {
  const auto place = places.find(key_of(key));
  return place == places.end() ? nullptr : &items[place->second].second;
}

const Value* Dict::find(std::string_view key) const {
  const auto place = places.find("s" + std::string(key));
  return place == places.end() ? nullptr : &items[place->second].second;
}

void Dict::put(const Value& key, Value value) {
  nesting = nest(nesting, value);
  const auto [place, added] = places.emplace(key_of(key), items.size());
  if (added) {
    items.emplace_back(key, std::move(value));
  } else {
    items[place->second].second = std::move(value);
  }
}

Value make_text(std::string_view plain) { return Value(Text(plain)); }

Value make_list(std::vector<Value> items, bool tuple) {
  List list{std::move(items), tuple, 1};
  for (const Value& item : list.items) list.nesting = nest(list.nesting, item);
  return Value(std::make_shared<const List>(std::move(list)));
}

Value make_dict(Dict dict) { return Value(std::make_shared<const Dict>(std::move(dict))); }

Value undefined(std::string name) { return Value(Undefined{std::make_shared<const std::string>(std::move(name))}); }

bool truth(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_integer()) return value.integer() != 0;
  if (value.is<double>()) return value.number() != 0;
  if (value.text() || value.list() || value.dict()) return extent(value) != 0;
  return true;
}

std::string_view type_name(const Value& value) {
  static constexpr std::string_view names[] = {"undefined value", "none",     "boolean", "integer",
                                               "number",          "string",   "list",    "dict",
                                               "namespace",       "function", "loop"};
  return names[value.data.index()];
}

size_t extent(const Value& value) {
  if (const Text* text = value.text()) return text->size();
  if (const List* list = value.list()) return list->items.size();
  if (const Dict* dict = value.dict()) return dict->items.size();
  return 0;
}

bool equal(const Value& a, const Value& b, Budget& budget) {
  budget.step(1 + extent(a) / 64);
  if (a.is_integer() && b.is_integer()) return a.integer() == b.integer();
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.data.index() != b.data.index()) return false;
  if (a.text()) return a.text()->bytes == b.text()->bytes;
  if (a.list()) return a.list() == b.list() || equal_lists(*a.list(), *b.list(), budget);
  if (a.dict()) return a.dict() == b.dict() || equal_dicts(*a.dict(), *b.dict(), budget);
  if (a.name_space()) return a.name_space() == b.name_space();
  if (a.callable()) return a.callable() == b.callable();
  if (a.loop()) return a.loop() == b.loop();
  return true;
}

int compare(const Value& a, const Value& b, Budget& budget) {
  budget.step(1 + extent(a) / 64);
  const auto order = [](auto left, auto right) { return left < right ? -1 : left > right ? 1 : 0; };
  if (a.is_integer() && b.is_integer()) return order(a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return order(a.number(), b.number());
  // The order of UTF-8 is the order of code points.
  if (a.text() && b.text()) return a.text()->bytes.compare(b.text()->bytes);
  if (a.list() && b.list() && a.list()->tuple == b.list()->tuple) {
    const auto& left = a.list()->items;
    const auto& right = b.list()->items;
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
      if (!equal(left[i], right[i], budget)) return compare(left[i], right[i], budget);
    }
    return order(left.size(), right.size());
  }
  fail("a " + std::string(type_name(a)) + " and a " + std::string(type_name(b)) + " have no order");
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  budget.step(1 + extent(container) / 64);
  if (const Text* text = container.text()) {
    if (!item.text()) fail("'in' a string needs a string before it, not a " + std::string(type_name(item)));
    return find_in(text->bytes, item.text()->bytes, 0) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) return dict->find(item) != nullptr;
  if (const List* list = container.list()) {
    for (const Value& one : list->items) {
      if (equal(one, item, budget)) return true;
    }
    return false;
  }
  if (container.is_undefined()) return false;
  fail("a " + std::string(type_name(container)) + " contains nothing that 'in' could find");
}

std::vector<Value> iterate(const Value& value, Budget& budget) {
  budget.step(1 + extent(value) / 8);
  budget.allocate(extent(value) * sizeof(Value));
  if (const List* list = value.list()) return list->items;
  std::vector<Value> items;
  if (const Dict* dict = value.dict()) {
    for (const auto& [key, unused] : dict->items) items.push_back(key);
    return items;
  }
  if (const Text* text = value.text()) {
    budget.allocate(text->size() * sizeof(Text));
    for (size_t begin = 0; begin < text->size();) {
      const size_t end = next_character(text->bytes, begin);
      items.emplace_back(text->part(begin, end));
      begin = end;
    }
    return items;
  }
  if (value.is_undefined()) return items;
  fail("a " + std::string(type_name(value)) + " cannot be iterated over");
}

Text to_text(const Value& value, Budget& budget) {
  Text out;
  print(out, value, false, budget);
  return out;
}

}  // namespace cepe::text::jinja
