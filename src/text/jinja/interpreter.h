// Walks a template's tree. One interpreter renders once.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/jinja/builtins.h"
#include "text/jinja/syntax.h"

namespace cepe::text::jinja {

struct Scope {
  std::unordered_map<std::string, Value> variables;
  std::shared_ptr<Scope> parent;
};

struct Limits {
  int64_t steps = 10'000'000;
  int64_t bytes = int64_t{512} << 20;  // of everything made while rendering, masks included
  size_t output = size_t{64} << 20;
};

class Interpreter {
 public:
  Interpreter(Context context, const Limits& limits);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  void define(const std::string& name, Value value) { scope_->variables[name] = std::move(value); }
  Context& context() { return context_; }
  // Errors carry no place yet: line() is where they happened.
  Text render(const Body& body);
  int line() const { return line_; }

 private:
  enum class Flow { onward, break_loop, continue_loop };
  Flow execute(const Body& body);
  Flow execute(const Statement& statement);
  Flow branch(const Statement& statement);
  Flow loop(const Statement& statement);
  Flow repeat(const Statement& statement, const std::shared_ptr<const List>& items);
  Flow in_scope(const Statement& statement);
  void assign(const Target& target, const Value& value);
  void define_macro(const Statement& statement);
  Text captured(const Body& body);
  void write(const Value& value);

  Value evaluate(const Expression& expression);
  Value evaluate_node(const Expression& expression);
  Value look_up(const std::string& name) const;
  Value slice(const Expression& expression);
  Value compare_chain(const Expression& expression);
  Value concat(const Expression& expression);
  Value make_sequence(const Expression& expression);
  Value make_dictionary(const Expression& expression);
  Value filter(const Expression& expression);
  Value call(const Expression& expression);
  Value call_macro(const Callable& callable, const Arguments& arguments);
  Value minus(const Value& value);
  Arguments arguments_of(const Expression& expression);
  std::shared_ptr<Scope> enter(std::shared_ptr<Scope> parent);

  Context context_;
  size_t max_output_;
  std::shared_ptr<Scope> scope_;
  Text* out_ = nullptr;
  const Value* filter_input_ = nullptr;  // what a filter block puts through its filters
  int depth_ = 0;
  int loops_ = 0;
  int line_ = 1;
};

}  // namespace cepe::text::jinja
