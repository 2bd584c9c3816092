// The tests behind `is`.
#include <algorithm>
#include <array>

#include "text/jinja/builtins.h"
#include "text/jinja/text_operations.h"

namespace cepe::text::jinja {
namespace {

constexpr std::array<std::string_view, 36> names = {
    "defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number",      "integer",
    "float",   "boolean",   "true", "false",  "equalto", "eq",       "==",       "sameas",      "ne",
    "!=",      "lt",        "<",    "le",     "<=",      "gt",       ">",        "ge",          ">=",
    "in",      "odd",       "even", "lower",  "upper",   "callable", "filter",   "divisibleby", "test"};

bool compares(std::string_view name, int order) {
  if (name == "lt" || name == "<") return order < 0;
  if (name == "le" || name == "<=") return order <= 0;
  if (name == "gt" || name == ">") return order > 0;
  return order >= 0;
}

bool test_type(std::string_view name, const Value& value, bool& known) {
  known = true;
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is_none();
  if (name == "string") return value.text() != nullptr;
  if (name == "mapping") return value.dict() != nullptr;
  if (name == "iterable" || name == "sequence") {
    return value.text() || value.list() || value.dict() || value.is_undefined();
  }
  if (name == "number") return value.is_number();
  if (name == "integer") return value.is<int64_t>();
  if (name == "float") return value.is<double>();
  if (name == "boolean") return value.is<bool>();
  if (name == "true") return value.is<bool>() && value.integer() == 1;
  if (name == "false") return value.is<bool>() && value.integer() == 0;
  if (name == "callable") return value.callable() != nullptr;
  known = false;
  return false;
}

bool same(const Value& a, const Value& b, Budget& budget) {
  return a.data.index() == b.data.index() && equal(a, b, budget);
}

}  // namespace

bool is_test(std::string_view name) { return std::find(names.begin(), names.end(), name) != names.end(); }

bool apply_test(Context& context, std::string_view name, const Value& value, const Arguments& arguments) {
  context.budget.step();
  bool known = false;
  const bool result = test_type(name, value, known);
  if (known) return result;
  if (name == "odd" || name == "even") return (expect_integer(value, name) % 2 != 0) == (name == "odd");
  if (name == "lower" || name == "upper") {
    const std::string text = expect_string(value, name);
    context.budget.allocate(2 * text.size());
    return change_case(Text(text), name == "lower" ? Case::lower : Case::upper).bytes == text;
  }
  const Value* other = arguments.find(0, "other");
  if (!other) fail("'is " + std::string(name) + "' needs something to compare with");
  if (name == "filter") return other->text() && is_filter(other->text()->bytes);
  if (name == "test") return other->text() && is_test(other->text()->bytes);
  if (name == "in") return contains(*other, value, context.budget);
  if (name == "sameas") return same(value, *other, context.budget);
  if (name == "equalto" || name == "eq" || name == "==") return equal(value, *other, context.budget);
  if (name == "ne" || name == "!=") return !equal(value, *other, context.budget);
  if (name == "divisibleby") {
    const int64_t divisor = expect_integer(*other, name);
    if (divisor == 0) fail("division by zero");
    return divisor == -1 || expect_integer(value, name) % divisor == 0;
  }
  return compares(name, compare(value, *other, context.budget));
}

}  // namespace cepe::text::jinja
