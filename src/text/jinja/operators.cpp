// Arithmetic, attributes, items and slices, as Python has them.
#include <algorithm>
#include <cmath>

#include "text/jinja/builtins.h"
#include "text/jinja/text_operations.h"

namespace cepe::text::jinja {
namespace {

[[noreturn]] void no_operation(std::string_view symbol, const Value& left, const Value& right) {
  for (const Value* value : {&left, &right}) {
    if (value->is_undefined()) fail(*std::get<Undefined>(value->data).name + " is undefined");
  }
  fail("'" + std::string(symbol) + "' between a " + std::string(type_name(left)) + " and a " +
       std::string(type_name(right)));
}

// Python's integers have no limit; ours are 64 bits and say so. By reference: the same call may set `result`.
Value checked(bool overflow, const int64_t& result) {
  if (overflow) unsupported("an integer of more than 64 bits");
  return Value(result);
}

Value integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  int64_t result = 1;
  bool overflow = false;
  if (base == 0 || base == 1) return Value(exponent == 0 ? int64_t{1} : base);
  if (base == -1) return Value(exponent % 2 ? int64_t{-1} : int64_t{1});
  for (int64_t i = 0; i < exponent && !overflow; ++i) overflow = __builtin_mul_overflow(result, base, &result);
  return checked(overflow, result);
}

Value divide_integers(std::string_view symbol, int64_t a, int64_t b) {
  if (b == 0) fail("division by zero");
  if (b == -1) {
    int64_t negative = 0;
    const bool overflow = __builtin_sub_overflow(int64_t{0}, a, &negative);
    return symbol == "%" ? Value(int64_t{0}) : checked(overflow, negative);
  }
  const int64_t rest = a % b;
  const bool down = rest != 0 && (rest < 0) != (b < 0);
  return Value(symbol == "%" ? rest + (down ? b : 0) : a / b - (down ? 1 : 0));
}

Value operate_integers(std::string_view symbol, int64_t a, int64_t b) {
  int64_t result = 0;
  if (symbol == "+") return checked(__builtin_add_overflow(a, b, &result), result);
  if (symbol == "-") return checked(__builtin_sub_overflow(a, b, &result), result);
  if (symbol == "*") return checked(__builtin_mul_overflow(a, b, &result), result);
  if (symbol == "**") return integer_power(a, b);
  return divide_integers(symbol, a, b);
}

Value operate_numbers(std::string_view symbol, double a, double b) {
  if (symbol == "+") return Value(a + b);
  if (symbol == "-") return Value(a - b);
  if (symbol == "*") return Value(a * b);
  if (symbol == "**") return Value(std::pow(a, b));
  if (b == 0) fail("division by zero");
  if (symbol == "/") return Value(a / b);
  const double rest = std::fmod(a, b);
  const bool down = rest != 0 && (rest < 0) != (b < 0);
  if (symbol == "%") return Value(down ? rest + b : rest);
  return Value(std::floor(a / b));
}

Value repeat(Context& context, const Value& value, int64_t count) {
  const size_t size = extent(value);
  if (count <= 0 || size == 0) count = 0;
  if (count > (int64_t{1} << 32)) unsupported("more memory than a chat template may use");
  context.budget.step(static_cast<size_t>(count));
  context.budget.allocate(size * static_cast<size_t>(count) * (value.text() ? 2 : sizeof(Value)));
  if (const Text* text = value.text()) {
    Text result;
    for (int64_t i = 0; i < count; ++i) result.append(*text);
    return Value(std::move(result));
  }
  std::vector<Value> items;
  for (int64_t i = 0; i < count; ++i) {
    items.insert(items.end(), value.list()->items.begin(), value.list()->items.end());
  }
  return make_list(std::move(items), value.list()->tuple);
}

Value join_lists(Context& context, const List& left, const List& right) {
  context.budget.step((left.items.size() + right.items.size()) / 8 + 1);
  context.budget.allocate((left.items.size() + right.items.size()) * sizeof(Value));
  std::vector<Value> items = left.items;
  items.insert(items.end(), right.items.begin(), right.items.end());
  return make_list(std::move(items), left.tuple);
}

Value loop_attribute(const Value& self, const Loop& loop, std::string_view name) {
  const size_t length = loop.items->items.size();
  const auto number = [](size_t value) { return Value(static_cast<int64_t>(value)); };
  if (name == "index") return number(loop.index + 1);
  if (name == "index0") return number(loop.index);
  if (name == "revindex") return number(length - loop.index);
  if (name == "revindex0") return number(length - loop.index - 1);
  if (name == "first") return Value(loop.index == 0);
  if (name == "last") return Value(loop.index + 1 == length);
  if (name == "length") return number(length);
  if (name == "depth") return Value(int64_t{loop.depth});
  if (name == "depth0") return Value(int64_t{loop.depth - 1});
  if (name == "previtem") return loop.index > 0 ? loop.items->items[loop.index - 1] : undefined("loop.previtem");
  if (name == "nextitem")
    return loop.index + 1 < length ? loop.items->items[loop.index + 1] : undefined("loop.nextitem");
  if (name == "cycle")
    return Value(std::make_shared<const Callable>(Callable{Callable::Kind::cycle, "cycle", self, nullptr, {}}));
  unsupported("'loop." + std::string(name) + "'");
}

Value missing(const Value& value, const std::string& name) {
  return undefined("'" + name + "' of a " + std::string(type_name(value)));
}

void refuse_undefined(const Value& value) {
  if (value.is_undefined()) fail(*std::get<Undefined>(value.data).name + " is undefined");
}

Value method(const Value& self, std::string_view name) {
  return Value(
      std::make_shared<const Callable>(Callable{Callable::Kind::method, std::string(name), self, nullptr, {}}));
}

// Index of an item, counted from the end where negative; none where it is outside.
std::optional<size_t> place_of(int64_t index, size_t length) {
  if (index < 0) index += static_cast<int64_t>(length);
  if (index < 0 || index >= static_cast<int64_t>(length)) return std::nullopt;
  return static_cast<size_t>(index);
}

}  // namespace

Value operate(Context& context, std::string_view symbol, const Value& left, const Value& right) {
  if (left.is_integer() && right.is_integer() && symbol != "/") {
    return operate_integers(symbol, left.integer(), right.integer());
  }
  if (left.is_number() && right.is_number()) return operate_numbers(symbol, left.number(), right.number());
  if (symbol == "+" && left.text() && right.text()) {
    context.budget.allocate(2 * (left.text()->size() + right.text()->size()));
    Text result = *left.text();
    result.append(*right.text());
    return Value(std::move(result));
  }
  if (symbol == "+" && left.list() && right.list() && left.list()->tuple == right.list()->tuple) {
    return join_lists(context, *left.list(), *right.list());
  }
  if (symbol == "*" && (left.text() || left.list()) && right.is_integer())
    return repeat(context, left, right.integer());
  if (symbol == "*" && (right.text() || right.list()) && left.is_integer())
    return repeat(context, right, left.integer());
  if (symbol == "%" && left.text()) unsupported("formatting a string with '%'");
  no_operation(symbol, left, right);
}

Value attribute_of(Context& context, const Value& value, std::string_view name) {
  context.budget.step();
  refuse_undefined(value);
  if (is_method(value, name)) return method(value, name);
  if (const Dict* dict = value.dict()) {
    if (const Value* found = dict->find(name)) return *found;
  } else if (const Namespace* fields = value.name_space()) {
    if (const auto found = fields->fields.find(std::string(name)); found != fields->fields.end()) return found->second;
  } else if (const Loop* loop = value.loop()) {
    return loop_attribute(value, *loop, name);
  }
  return missing(value, std::string(name));
}

Value item_of(Context& context, const Value& value, const Value& key) {
  context.budget.step();
  refuse_undefined(value);
  if (const Dict* dict = value.dict()) {
    if (const Value* found = dict->find(key)) return *found;
  } else if (const List* list = value.list(); list && key.is_integer()) {
    if (const auto place = place_of(key.integer(), list->items.size())) return list->items[*place];
  } else if (const Text* text = value.text(); text && key.is_integer()) {
    context.budget.step(text->size() / 64);
    const auto place = place_of(key.integer(), count_characters(text->bytes));
    if (place) return Value(slice_text(*text, static_cast<int64_t>(*place), static_cast<int64_t>(*place) + 1, 1));
  }
  if (!key.text()) return missing(value, to_text(key, context.budget).bytes.substr(0, 40));
  return attribute_of(context, value, key.text()->bytes);
}

Value slice_of(Context& context, const Value& value, std::optional<int64_t> start, std::optional<int64_t> stop,
               int64_t step) {
  if (step == 0) fail("a slice whose step is 0");
  context.budget.step(1 + extent(value) / 8);
  if (const Text* text = value.text()) {
    context.budget.allocate(text->size() * (2 + sizeof(size_t)));
    return Value(slice_text(*text, start, stop, step));
  }
  const List* list = value.list();
  if (!list) {
    refuse_undefined(value);
    fail("a " + std::string(type_name(value)) + " cannot be sliced");
  }
  const SliceRange range = slice_range(static_cast<int64_t>(list->items.size()), start, stop, step);
  context.budget.allocate(static_cast<size_t>(range.count) * sizeof(Value));
  std::vector<Value> items;
  for (int64_t i = 0; i < range.count; ++i) items.push_back(list->items[static_cast<size_t>(range.start + i * step)]);
  return make_list(std::move(items), list->tuple);
}

}  // namespace cepe::text::jinja
