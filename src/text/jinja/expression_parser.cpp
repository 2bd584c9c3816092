#include "text/jinja/expression_parser.h"

#include <algorithm>

#include "text/jinja/builtins.h"

namespace cepe::text::jinja {
namespace {

constexpr int max_expression_depth = 150;

using ExpressionKind = Expression::Kind;

std::unique_ptr<Expression> node(ExpressionKind kind, int line) {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  return expression;
}

void adopt(Expression& parent, ExpressionPointer child) {
  if (child) parent.depth = std::max(parent.depth, child->depth + 1);
  if (parent.depth > max_expression_depth) {
    TokenStream::raise(base::ErrorCode::unsupported, parent.line, "an expression nested so deeply is not supported");
  }
  parent.children.push_back(std::move(child));
}

// Counts how deep the parser itself stands.
class ExpressionLevel {
 public:
  ExpressionLevel(int& depth, const TokenStream& stream) : depth_(depth) {
    if (++depth_ > max_expression_depth) {
      --depth_;
      stream.unsupported("an expression nested so deeply");
    }
  }
  ~ExpressionLevel() { --depth_; }
  ExpressionLevel(const ExpressionLevel&) = delete;
  ExpressionLevel& operator=(const ExpressionLevel&) = delete;

 private:
  int& depth_;
};

}  // namespace

ExpressionPointer ExpressionParser::expression(bool with_condition) {
  const ExpressionLevel level(depth_, stream_);
  ExpressionPointer result = either();
  while (with_condition && stream_.is_name("if")) {
    auto conditional = node(ExpressionKind::conditional, stream_.line());
    stream_.next();
    adopt(*conditional, either());
    adopt(*conditional, std::move(result));
    adopt(*conditional, stream_.skip_name("else") ? expression() : nullptr);
    result = std::move(conditional);
  }
  return result;
}

ExpressionPointer ExpressionParser::tuple(bool with_condition) {
  const int line = stream_.line();
  ExpressionPointer first = expression(with_condition);
  if (!stream_.is_symbol(",")) return first;
  auto result = node(ExpressionKind::tuple, line);
  adopt(*result, std::move(first));
  while (stream_.skip_symbol(",")) {
    if (stream_.is(Token::Kind::variable_end) || stream_.is(Token::Kind::block_end) || stream_.is_symbol(")")) break;
    adopt(*result, expression(with_condition));
  }
  return result;
}

ExpressionPointer ExpressionParser::either() {
  ExpressionPointer left = both();
  while (stream_.is_name("or")) {
    auto result = node(ExpressionKind::either, stream_.next().line);
    adopt(*result, std::move(left));
    adopt(*result, both());
    left = std::move(result);
  }
  return left;
}

ExpressionPointer ExpressionParser::both() {
  ExpressionPointer left = negation();
  while (stream_.is_name("and")) {
    auto result = node(ExpressionKind::both, stream_.next().line);
    adopt(*result, std::move(left));
    adopt(*result, negation());
    left = std::move(result);
  }
  return left;
}

ExpressionPointer ExpressionParser::negation() {
  if (!stream_.is_name("not")) return comparison();
  const ExpressionLevel level(depth_, stream_);
  auto result = node(ExpressionKind::negation, stream_.next().line);
  adopt(*result, negation());
  return result;
}

ExpressionPointer ExpressionParser::comparison() {
  ExpressionPointer first = sum();
  std::unique_ptr<Expression> result;
  while (true) {
    std::string name;
    static constexpr std::string_view symbols[] = {"==", "!=", "<=", ">=", "<", ">"};
    const bool symbol = stream_.is(Token::Kind::symbol) &&
                        std::find(std::begin(symbols), std::end(symbols), stream_.look().text) != std::end(symbols);
    const int line = stream_.line();
    if (symbol) {
      name = stream_.next().text;
    } else if (stream_.skip_name("in")) {
      name = "in";
    } else if (stream_.is_name("not") && stream_.look(1).kind == Token::Kind::name && stream_.look(1).text == "in") {
      stream_.next();
      stream_.next();
      name = "not in";
    } else {
      break;
    }
    if (!result) {
      result = node(ExpressionKind::comparison, line);
      adopt(*result, std::move(first));
    }
    result->names.push_back(name);
    adopt(*result, sum());
  }
  return result ? ExpressionPointer(std::move(result)) : std::move(first);
}

ExpressionPointer ExpressionParser::binary(Rule operand, std::initializer_list<std::string_view> symbols) {
  ExpressionPointer left = (this->*operand)();
  while (std::any_of(symbols.begin(), symbols.end(), [&](std::string_view one) { return stream_.is_symbol(one); })) {
    const Token symbol = stream_.next();
    auto result = node(ExpressionKind::binary, symbol.line);
    result->name = symbol.text;
    adopt(*result, std::move(left));
    adopt(*result, (this->*operand)());
    left = std::move(result);
  }
  return left;
}

ExpressionPointer ExpressionParser::sum() { return binary(&ExpressionParser::concat, {"+", "-"}); }

ExpressionPointer ExpressionParser::concat() {
  ExpressionPointer first = product();
  if (!stream_.is_symbol("~")) return first;
  auto result = node(ExpressionKind::concat, stream_.line());
  adopt(*result, std::move(first));
  while (stream_.skip_symbol("~")) adopt(*result, product());
  return result;
}

ExpressionPointer ExpressionParser::product() { return binary(&ExpressionParser::power, {"*", "/", "//", "%"}); }

ExpressionPointer ExpressionParser::power() {
  ExpressionPointer left = unary();
  while (stream_.is_symbol("**")) {
    auto result = node(ExpressionKind::binary, stream_.next().line);
    result->name = "**";
    adopt(*result, std::move(left));
    adopt(*result, unary());
    left = std::move(result);
  }
  return left;
}

ExpressionPointer ExpressionParser::unary(bool with_filters) {
  ExpressionPointer result;
  if (stream_.is_symbol("-") || stream_.is_symbol("+")) {
    const ExpressionLevel level(depth_, stream_);
    const Token sign = stream_.next();
    auto operation = node(sign.text == "-" ? ExpressionKind::minus : ExpressionKind::plus, sign.line);
    adopt(*operation, unary(false));
    result = std::move(operation);
  } else {
    result = primary();
  }
  result = postfix(std::move(result));
  return with_filters ? suffixes(std::move(result)) : std::move(result);
}

ExpressionPointer ExpressionParser::literal() {
  const Token token = stream_.next();
  auto result = node(ExpressionKind::constant, token.line);
  switch (token.kind) {
    case Token::Kind::string: {
      std::string text = token.text;
      while (stream_.is(Token::Kind::string)) text += stream_.next().text;
      result->value = make_text(text);
      break;
    }
    case Token::Kind::integer:
      result->value = Value(token.integer);
      break;
    case Token::Kind::number:
      result->value = Value(token.number);
      break;
    default:
      if (token.text == "true" || token.text == "True" || token.text == "false" || token.text == "False") {
        result->value = Value(token.text == "true" || token.text == "True");
      } else if (token.text == "none" || token.text == "None") {
        result->value = Value(None{});
      } else {
        result->kind = ExpressionKind::name;
        result->name = token.text;
      }
  }
  return result;
}

ExpressionPointer ExpressionParser::primary() {
  switch (stream_.look().kind) {
    case Token::Kind::name:
    case Token::Kind::string:
    case Token::Kind::integer:
    case Token::Kind::number:
      return literal();
    default:
      break;
  }
  if (stream_.is_symbol("(") || stream_.is_symbol("[") || stream_.is_symbol("{")) return brackets();
  stream_.expect(Token::Kind::name, "an expression");
  return nullptr;  // not reached: the line above fails
}

ExpressionPointer ExpressionParser::brackets() {
  const ExpressionLevel level(depth_, stream_);
  const Token opening = stream_.next();
  if (opening.text == "(") {
    if (stream_.skip_symbol(")")) return node(ExpressionKind::tuple, opening.line);
    ExpressionPointer inner = tuple();
    stream_.expect_symbol(")");
    return inner;
  }
  const bool dict = opening.text == "{";
  const std::string_view closing = dict ? "}" : "]";
  auto result = node(dict ? ExpressionKind::dict : ExpressionKind::list, opening.line);
  while (!stream_.is_symbol(closing)) {
    if (!result->children.empty()) stream_.expect_symbol(",");
    if (stream_.is_symbol(closing)) break;
    adopt(*result, expression());
    if (dict) {
      stream_.expect_symbol(":");
      adopt(*result, expression());
    }
  }
  stream_.expect_symbol(closing);
  return result;
}

ExpressionPointer ExpressionParser::postfix(ExpressionPointer base) {
  while (true) {
    if (stream_.is_symbol(".")) {
      const int line = stream_.next().line;
      const bool index = stream_.is(Token::Kind::integer);
      auto result = node(index ? ExpressionKind::item : ExpressionKind::attribute, line);
      adopt(*result, std::move(base));
      if (index) {
        auto number = node(ExpressionKind::constant, line);
        number->value = Value(stream_.next().integer);
        adopt(*result, std::move(number));
      } else {
        result->name = stream_.expect_any_name();
      }
      base = std::move(result);
    } else if (stream_.is_symbol("[")) {
      base = subscript(std::move(base));
    } else if (stream_.is_symbol("(")) {
      base = call(std::move(base));
    } else {
      return base;
    }
  }
}

ExpressionPointer ExpressionParser::subscript(ExpressionPointer base) {
  const ExpressionLevel level(depth_, stream_);
  auto result = node(ExpressionKind::item, stream_.next().line);
  adopt(*result, std::move(base));
  adopt(*result, stream_.is_symbol(":") ? nullptr : tuple());
  while (stream_.is_symbol(":") && result->children.size() < 4) {
    stream_.next();
    result->kind = ExpressionKind::slice;
    adopt(*result, stream_.is_symbol(":") || stream_.is_symbol("]") ? nullptr : expression());
  }
  stream_.expect_symbol("]");
  if (result->kind == ExpressionKind::slice) result->children.resize(4);
  return result;
}

ExpressionPointer ExpressionParser::call(ExpressionPointer callee) {
  auto result = node(ExpressionKind::call, stream_.line());
  adopt(*result, std::move(callee));
  arguments(*result);
  return result;
}

void ExpressionParser::arguments(Expression& owner) {
  const ExpressionLevel level(depth_, stream_);
  stream_.expect_symbol("(");
  for (bool first = true; !stream_.is_symbol(")"); first = false) {
    if (!first) stream_.expect_symbol(",");
    if (stream_.is_symbol(")")) break;
    if (stream_.is_symbol("*") || stream_.is_symbol("**")) stream_.unsupported("'*' before an argument");
    const Token& after = stream_.look(1);
    if (stream_.is(Token::Kind::name) && after.kind == Token::Kind::symbol && after.text == "=") {
      std::string name = stream_.next().text;
      stream_.next();
      ExpressionPointer value = expression();
      owner.depth = std::max(owner.depth, value->depth + 1);
      owner.keywords.emplace_back(std::move(name), std::move(value));
    } else if (!owner.keywords.empty()) {
      stream_.fail("an argument without a name after one with a name");
    } else {
      adopt(owner, expression());
    }
  }
  stream_.expect_symbol(")");
}

ExpressionPointer ExpressionParser::filters(ExpressionPointer input, bool first) {
  while (first || stream_.skip_symbol("|")) {
    first = false;
    auto result = node(ExpressionKind::filter, stream_.line());
    const Token& token = stream_.look();
    if (token.kind == Token::Kind::name && !is_filter(token.text)) stream_.unsupported("filter '" + token.text + "'");
    result->name = stream_.expect_any_name();
    adopt(*result, std::move(input));
    if (stream_.is_symbol("(")) arguments(*result);
    input = std::move(result);
  }
  return input;
}

ExpressionPointer ExpressionParser::test(ExpressionPointer subject) {
  const int line = stream_.next().line;
  const bool negated = stream_.skip_name("not");
  auto result = node(ExpressionKind::test, line);
  const Token& token = stream_.look();
  if (token.kind == Token::Kind::name && !is_test(token.text)) stream_.unsupported("test 'is " + token.text + "'");
  result->name = stream_.expect_any_name();
  adopt(*result, std::move(subject));
  const Token::Kind kind = stream_.look().kind;
  const bool word = kind == Token::Kind::name && !stream_.is_name("else") && !stream_.is_name("or") &&
                    !stream_.is_name("and") && !stream_.is_name("if") && !stream_.is_name("is");
  if (stream_.is_symbol("(")) {
    arguments(*result);
  } else if (word || kind == Token::Kind::string || kind == Token::Kind::integer || kind == Token::Kind::number ||
             stream_.is_symbol("[") || stream_.is_symbol("{")) {
    adopt(*result, postfix(primary()));
  }
  if (!negated) return result;
  auto negation = node(ExpressionKind::negation, line);
  adopt(*negation, std::move(result));
  return negation;
}

ExpressionPointer ExpressionParser::suffixes(ExpressionPointer base) {
  while (true) {
    if (stream_.is_symbol("|")) {
      base = filters(std::move(base), false);
    } else if (stream_.is_name("is")) {
      base = test(std::move(base));
    } else if (stream_.is_symbol("(")) {
      base = call(std::move(base));
    } else {
      return base;
    }
  }
}

}  // namespace cepe::text::jinja
