// What a template finds without defining it: filters, tests, methods of values, functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace cepe::text::jinja {

// What one rendering carries around.
struct Context {
  Budget budget;
  std::optional<int64_t> now;                          // seconds since 1970 in UTC; none: the clock, in local time
  std::vector<std::shared_ptr<Namespace>> namespaces;  // every one made: the only values that can form a cycle
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `place` or called `name`, nullptr where there is none.
  const Value* find(size_t place, std::string_view name) const;
  // Errors: more positional ones than `most`, or a name that is not among `names`.
  void check(std::string_view callee, size_t most, std::initializer_list<std::string_view> names) const;
};

bool is_filter(std::string_view name);
bool is_test(std::string_view name);
Value apply_filter(Context& context, std::string_view name, const Value& input, const Arguments& arguments);
bool apply_test(Context& context, std::string_view name, const Value& value, const Arguments& arguments);

bool is_method(const Value& self, std::string_view name);
Value call_method(Context& context, const Callable& method, const Arguments& arguments);

bool is_function(std::string_view name);
Value call_function(Context& context, std::string_view name, const Arguments& arguments);

// value.name and value[key]: undefined where there is none. Errors: the value itself is undefined.
Value attribute_of(Context& context, const Value& value, std::string_view name);
Value item_of(Context& context, const Value& value, const Value& key);
Value slice_of(Context& context, const Value& value, std::optional<int64_t> start, std::optional<int64_t> stop,
               int64_t step);
// left symbol right, for + - * / // % **.
Value operate(Context& context, std::string_view symbol, const Value& left, const Value& right);

// JSON as json.dumps(value, ensure_ascii=False) writes it.
Text to_json(Context& context, const Value& value, const Arguments& arguments);

// Conversions of arguments; the error names `what`.
std::string expect_string(const Value& value, std::string_view what);
int64_t expect_integer(const Value& value, std::string_view what);

}  // namespace cepe::text::jinja
