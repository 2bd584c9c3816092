// The tree of a template. Every node knows its line and how deep it is (bounded by the parser).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace cepe::text::jinja {

struct Expression;
using ExpressionPointer = std::unique_ptr<const Expression>;

struct Expression {
  enum class Kind {
    constant,     // value
    name,         // name
    attribute,    // children[0].name
    item,         // children[0][children[1]]
    slice,        // children[0][children[1]:children[2]:children[3]], null where left out
    call,         // children[0](children[1...], keywords)
    filter,       // children[0] | name(children[1...], keywords)
    test,         // children[0] is name(children[1...])
    negation,     // not children[0]
    minus,        // -children[0]
    plus,         // +children[0]
    binary,       // children[0] name children[1]
    comparison,   // children[0] names[0] children[1] names[1] children[2]...
    concat,       // children[0] ~ children[1] ~ ...
    both,         // children[0] and children[1]
    either,       // children[0] or children[1]
    conditional,  // children[1] if children[0] else children[2] (null: undefined)
    list,         // [children...]
    tuple,        // (children...)
    dict,         // {children[0]: children[1], ...}
  } kind = Kind::constant;
  int line = 0;
  int depth = 1;
  std::string name;
  std::vector<std::string> names;
  Value value;
  std::vector<ExpressionPointer> children;
  std::vector<std::pair<std::string, ExpressionPointer>> keywords;
};

// What `for`, `set` and `with` assign to: one name, several, or an attribute of a namespace.
struct Target {
  std::vector<std::string> names;
  std::string attribute;  // names[0].attribute
  bool unpacks = false;
};

struct Statement;
using Body = std::vector<std::unique_ptr<const Statement>>;

struct Statement {
  enum class Kind {
    text,         // text
    output,       // {{ expressions[0] }}
    branch,       // if expressions[i] then bodies[i]; one body more: else
    loop,         // for target in expressions[0] if expressions[1]: bodies[0], else bodies[1]
    assign,       // set target = expressions[0]
    assign_body,  // set target | filters: bodies[0]
    macro,        // target.names[0](parameters, defaults in expressions, null where none): bodies[0]
    filter_body,  // filter: bodies[0] through expressions[0], whose innermost input is a null child
    scope,        // with targets = expressions: bodies[0]
    break_loop,
    continue_loop,
    group,  // bodies[0] as it stands (generation)
  } kind = Kind::text;
  int line = 0;
  Text text;
  Target target;
  std::vector<std::string> parameters;
  std::vector<ExpressionPointer> expressions;
  std::vector<Body> bodies;
};

// Errors: corrupt (syntax) or unsupported (a construct), with the line.
Body parse(std::string_view source);

}  // namespace cepe::text::jinja
