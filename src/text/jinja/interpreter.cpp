// Statements.
#include "text/jinja/interpreter.h"

#include <algorithm>
#include <utility>

namespace cepe::text::jinja {
namespace {

constexpr int max_call_depth = 400;

// Sets a variable for as long as a scope of C++ lasts.
template <class T>
class Restore {
 public:
  Restore(T& variable, T value) : variable_(variable), before_(std::exchange(variable, std::move(value))) {}
  ~Restore() { variable_ = std::move(before_); }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

 private:
  T& variable_;
  T before_;
};

void check_depth(int depth) {
  if (depth > max_call_depth) unsupported("macros and statements nested so deeply");
}

}  // namespace

Interpreter::Interpreter(Context context, const Limits& limits)
    : context_(std::move(context)), max_output_(limits.output), scope_(std::make_shared<Scope>()) {}

// Namespaces may hold each other in a circle: all are held here until each has let go of its fields.
Interpreter::~Interpreter() {
  for (const auto& one : context_.namespaces) one->fields.clear();
}

Text Interpreter::render(const Body& body) {
  Text out;
  const Restore output(out_, &out);
  execute(body);
  return out;
}

std::shared_ptr<Scope> Interpreter::enter(std::shared_ptr<Scope> parent) {
  context_.budget.allocate(sizeof(Scope));
  auto scope = std::make_shared<Scope>();
  scope->parent = std::move(parent);
  return scope;
}

void Interpreter::write(const Value& value) {
  if (const Text* text = value.text()) {
    context_.budget.allocate(2 * text->size());
    out_->append(*text);
  } else {
    out_->append(to_text(value, context_.budget));
  }
  if (out_->size() > max_output_) unsupported("more than " + std::to_string(max_output_) + " bytes of output");
}

Text Interpreter::captured(const Body& body) {
  Text out;
  const Restore output(out_, &out);
  execute(body);
  return out;
}

Interpreter::Flow Interpreter::execute(const Body& body) {
  const Restore deeper(depth_, depth_ + 1);
  check_depth(depth_);
  for (const auto& statement : body) {
    context_.budget.step();
    if (const Flow flow = execute(*statement); flow != Flow::onward) return flow;
  }
  return Flow::onward;
}

Interpreter::Flow Interpreter::execute(const Statement& statement) {
  line_ = statement.line;
  switch (statement.kind) {
    case Statement::Kind::text:
      context_.budget.allocate(2 * statement.text.size());
      out_->append(statement.text);
      if (out_->size() > max_output_) unsupported("more than " + std::to_string(max_output_) + " bytes of output");
      break;
    case Statement::Kind::output:
      write(evaluate(*statement.expressions[0]));
      break;
    case Statement::Kind::branch:
      return branch(statement);
    case Statement::Kind::loop:
      return loop(statement);
    case Statement::Kind::assign:
      assign(statement.target, evaluate(*statement.expressions[0]));
      break;
    case Statement::Kind::assign_body:
    case Statement::Kind::filter_body: {
      Value value(captured(statement.bodies[0]));
      if (statement.expressions[0]) {
        const Restore input(filter_input_, static_cast<const Value*>(&value));
        Value result = evaluate(*statement.expressions[0]);
        value = std::move(result);
      }
      if (statement.kind == Statement::Kind::assign_body) {
        assign(statement.target, value);
      } else {
        write(value);
      }
      break;
    }
    case Statement::Kind::macro:
      define_macro(statement);
      break;
    case Statement::Kind::scope:
      return in_scope(statement);
    case Statement::Kind::break_loop:
      return Flow::break_loop;
    case Statement::Kind::continue_loop:
      return Flow::continue_loop;
    case Statement::Kind::group:
      return execute(statement.bodies[0]);
  }
  return Flow::onward;
}

Interpreter::Flow Interpreter::branch(const Statement& statement) {
  for (size_t i = 0; i < statement.expressions.size(); ++i) {
    if (truth(evaluate(*statement.expressions[i]))) return execute(statement.bodies[i]);
  }
  return statement.bodies.size() > statement.expressions.size() ? execute(statement.bodies.back()) : Flow::onward;
}

Interpreter::Flow Interpreter::in_scope(const Statement& statement) {
  auto scope = enter(scope_);
  for (size_t i = 0; i < statement.parameters.size(); ++i) {
    scope->variables[statement.parameters[i]] = evaluate(*statement.expressions[i]);
  }
  const Restore inner(scope_, std::move(scope));
  return execute(statement.bodies[0]);
}

Interpreter::Flow Interpreter::loop(const Statement& statement) {
  std::vector<Value> items = iterate(evaluate(*statement.expressions[0]), context_.budget);
  if (statement.expressions[1]) {
    std::vector<Value> kept;
    const Restore inner(scope_, enter(scope_));
    for (Value& item : items) {
      assign(statement.target, item);
      if (truth(evaluate(*statement.expressions[1]))) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }
  if (items.empty()) {
    if (statement.bodies.size() == 1) return Flow::onward;
    const Restore inner(scope_, enter(scope_));
    return execute(statement.bodies[1]);
  }
  return repeat(statement, std::get<std::shared_ptr<const List>>(make_list(std::move(items)).data));
}

Interpreter::Flow Interpreter::repeat(const Statement& statement, const std::shared_ptr<const List>& items) {
  const Restore deeper(loops_, loops_ + 1);
  for (size_t i = 0; i < items->items.size(); ++i) {
    context_.budget.step(8);  // a scope with two variables
    const Restore inner(scope_, enter(scope_));
    scope_->variables["loop"] = Value(std::make_shared<const Loop>(Loop{items, i, loops_}));
    assign(statement.target, items->items[i]);
    if (execute(statement.bodies[0]) == Flow::break_loop) break;
  }
  return Flow::onward;
}

void Interpreter::assign(const Target& target, const Value& value) {
  if (!target.attribute.empty()) {
    const Value owner = look_up(target.names[0]);
    if (!owner.name_space()) fail("'" + target.names[0] + "' is no namespace: its attributes cannot be set");
    context_.budget.allocate(64);
    owner.name_space()->fields[target.attribute] = value;
    return;
  }
  if (!target.unpacks) {
    scope_->variables[target.names[0]] = value;
    return;
  }
  const std::vector<Value> parts = iterate(value, context_.budget);
  if (parts.size() != target.names.size()) {
    fail(std::to_string(parts.size()) + " values for " + std::to_string(target.names.size()) + " names");
  }
  for (size_t i = 0; i < parts.size(); ++i) scope_->variables[target.names[i]] = parts[i];
}

void Interpreter::define_macro(const Statement& statement) {
  const std::string& name = statement.target.names[0];
  scope_->variables[name] =
      Value(std::make_shared<const Callable>(Callable{Callable::Kind::macro, name, Value(None{}), &statement, scope_}));
}

Value Interpreter::call_macro(const Callable& callable, const Arguments& arguments) {
  const Statement& macro = *callable.macro;
  auto closure = callable.closure.lock();
  if (!closure) unsupported("calling macro '" + callable.name + "' outside of where it was defined");
  arguments.check(callable.name, macro.parameters.size(), {"*"});
  for (const auto& [name, value] : arguments.named) {
    if (std::find(macro.parameters.begin(), macro.parameters.end(), name) == macro.parameters.end()) {
      fail("macro '" + callable.name + "' has no parameter '" + name + "'");
    }
  }
  const Restore inner(scope_, enter(std::move(closure)));
  const Restore loops(loops_, 0);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const std::string& name = macro.parameters[i];
    const Value* given = arguments.find(i, name);
    const Value value = given                  ? *given
                        : macro.expressions[i] ? evaluate(*macro.expressions[i])
                                               : undefined("parameter '" + name + "'");
    scope_->variables[name] = value;
  }
  return Value(captured(macro.bodies[0]));
}

}  // namespace cepe::text::jinja
