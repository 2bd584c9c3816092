// Expressions.
#include <utility>

#include "text/jinja/interpreter.h"

namespace cepe::text::jinja {
namespace {

constexpr int max_evaluation_depth = 400;

class EvaluationLevel {
 public:
  explicit EvaluationLevel(int& depth) : depth_(++depth) {
    if (depth_ > max_evaluation_depth) {
      --depth_;
      unsupported("macros and expressions nested so deeply");
    }
  }
  ~EvaluationLevel() { --depth_; }
  EvaluationLevel(const EvaluationLevel&) = delete;
  EvaluationLevel& operator=(const EvaluationLevel&) = delete;

 private:
  int& depth_;
};

bool holds(std::string_view name, const Value& left, const Value& right, Budget& budget) {
  if (name == "==") return equal(left, right, budget);
  if (name == "!=") return !equal(left, right, budget);
  if (name == "in") return contains(right, left, budget);
  if (name == "not in") return !contains(right, left, budget);
  const int order = compare(left, right, budget);
  if (name == "<") return order < 0;
  if (name == "<=") return order <= 0;
  if (name == ">") return order > 0;
  return order >= 0;
}

}  // namespace

Value Interpreter::evaluate(const Expression& expression) {
  const EvaluationLevel level(depth_);
  context_.budget.step();
  line_ = expression.line;
  return evaluate_node(expression);
}

Value Interpreter::evaluate_node(const Expression& expression) {
  using Kind = Expression::Kind;
  const auto& children = expression.children;
  switch (expression.kind) {
    case Kind::constant:
      return expression.value;
    case Kind::name:
      return look_up(expression.name);
    case Kind::attribute:
      return attribute_of(context_, evaluate(*children[0]), expression.name);
    case Kind::item: {
      const Value base = evaluate(*children[0]);
      return item_of(context_, base, evaluate(*children[1]));
    }
    case Kind::slice:
      return slice(expression);
    case Kind::call:
      return call(expression);
    case Kind::filter:
      return filter(expression);
    case Kind::test: {
      const Value subject = evaluate(*children[0]);
      return Value(apply_test(context_, expression.name, subject, arguments_of(expression)));
    }
    case Kind::negation:
      return Value(!truth(evaluate(*children[0])));
    case Kind::minus:
      return minus(evaluate(*children[0]));
    case Kind::plus:
      return operate(context_, "+", Value(int64_t{0}), evaluate(*children[0]));
    case Kind::binary: {
      const Value left = evaluate(*children[0]);
      return operate(context_, expression.name, left, evaluate(*children[1]));
    }
    case Kind::comparison:
      return compare_chain(expression);
    case Kind::concat:
      return concat(expression);
    case Kind::both: {
      Value left = evaluate(*children[0]);
      return truth(left) ? evaluate(*children[1]) : left;
    }
    case Kind::either: {
      Value left = evaluate(*children[0]);
      return truth(left) ? left : evaluate(*children[1]);
    }
    case Kind::conditional:
      if (truth(evaluate(*children[0]))) return evaluate(*children[1]);
      return children[2] ? evaluate(*children[2]) : undefined("an 'if' without 'else'");
    case Kind::list:
    case Kind::tuple:
      return make_sequence(expression);
    case Kind::dict:
      return make_dictionary(expression);
  }
  return {};
}

Value Interpreter::look_up(const std::string& name) const {
  for (const Scope* scope = scope_.get(); scope; scope = scope->parent.get()) {
    if (const auto found = scope->variables.find(name); found != scope->variables.end()) return found->second;
  }
  if (is_function(name)) {
    return Value(
        std::make_shared<const Callable>(Callable{Callable::Kind::function, name, Value(None{}), nullptr, {}}));
  }
  return undefined("'" + name + "'");
}

Value Interpreter::minus(const Value& value) { return operate(context_, "*", value, Value(int64_t{-1})); }

Value Interpreter::slice(const Expression& expression) {
  const Value base = evaluate(*expression.children[0]);
  std::optional<int64_t> bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    if (!expression.children[i + 1]) continue;
    const Value bound = evaluate(*expression.children[i + 1]);
    if (!bound.is_none()) bounds[i] = expect_integer(bound, "slice");
  }
  return slice_of(context_, base, bounds[0], bounds[1], bounds[2].value_or(1));
}

Value Interpreter::compare_chain(const Expression& expression) {
  Value left = evaluate(*expression.children[0]);
  for (size_t i = 0; i < expression.names.size(); ++i) {
    Value right = evaluate(*expression.children[i + 1]);
    if (!holds(expression.names[i], left, right, context_.budget)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::concat(const Expression& expression) {
  Text result;
  for (const auto& child : expression.children) {
    const Value value = evaluate(*child);
    context_.budget.allocate(2 * extent(value));
    result.append(to_text(value, context_.budget));
  }
  return Value(std::move(result));
}

Value Interpreter::make_sequence(const Expression& expression) {
  context_.budget.allocate(expression.children.size() * sizeof(Value));
  std::vector<Value> items;
  for (const auto& child : expression.children) items.push_back(evaluate(*child));
  return make_list(std::move(items), expression.kind == Expression::Kind::tuple);
}

Value Interpreter::make_dictionary(const Expression& expression) {
  context_.budget.allocate(expression.children.size() * 64);
  Dict dict;
  for (size_t i = 0; i + 1 < expression.children.size(); i += 2) {
    const Value key = evaluate(*expression.children[i]);
    context_.budget.allocate(extent(key));
    dict.put(key, evaluate(*expression.children[i + 1]));
  }
  return make_dict(std::move(dict));
}

Arguments Interpreter::arguments_of(const Expression& expression) {
  Arguments arguments;
  for (size_t i = 1; i < expression.children.size(); ++i) {
    arguments.positional.push_back(evaluate(*expression.children[i]));
  }
  for (const auto& [name, value] : expression.keywords) arguments.named.emplace_back(name, evaluate(*value));
  return arguments;
}

Value Interpreter::filter(const Expression& expression) {
  const Value input = expression.children[0] ? evaluate(*expression.children[0]) : *filter_input_;
  const Arguments arguments = arguments_of(expression);
  line_ = expression.line;
  return apply_filter(context_, expression.name, input, arguments);
}

Value Interpreter::call(const Expression& expression) {
  const Value callee = evaluate(*expression.children[0]);
  if (callee.is_undefined()) unsupported("calling " + *std::get<Undefined>(callee.data).name);
  const Callable* callable = callee.callable();
  if (!callable) fail("a " + std::string(type_name(callee)) + " cannot be called");
  const Arguments arguments = arguments_of(expression);
  line_ = expression.line;
  switch (callable->kind) {
    case Callable::Kind::function:
      return call_function(context_, callable->name, arguments);
    case Callable::Kind::method:
      return call_method(context_, *callable, arguments);
    case Callable::Kind::macro:
      return call_macro(*callable, arguments);
    case Callable::Kind::cycle:
      break;
  }
  if (arguments.positional.empty()) fail("'loop.cycle' needs something to cycle through");
  return arguments.positional[callable->self.loop()->index % arguments.positional.size()];
}

}  // namespace cepe::text::jinja
