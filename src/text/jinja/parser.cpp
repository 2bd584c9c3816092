// Statements of a template.
#include <algorithm>

#include "text/jinja/expression_parser.h"
#include "text/jinja/syntax.h"
#include "text/jinja/token_stream.h"

namespace cepe::text::jinja {
namespace {

constexpr int max_statement_depth = 60;

using StatementKind = Statement::Kind;
using Names = std::vector<std::string>;

class Parser {
 public:
  explicit Parser(std::string_view source) : stream_(tokenize(source)), expressions_(stream_) {}

  Body run() { return body({}); }

 private:
  std::unique_ptr<Statement> make(StatementKind kind) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = stream_.line();
    return statement;
  }

  void end_tag() { stream_.expect(Token::Kind::block_end, "'%}'"); }

  // Statements up to a tag whose name is one of `ends`; that name is the next token then.
  Body body(const Names& ends) {
    if (++depth_ > max_statement_depth) stream_.unsupported("statements nested so deeply");
    Body result;
    const int opened = stream_.line();
    while (!stream_.is(Token::Kind::end)) {
      const Token token = stream_.next();
      if (token.kind == Token::Kind::text) {
        auto text = make(StatementKind::text);
        text->text = Text(token.text);
        result.push_back(std::move(text));
      } else if (token.kind == Token::Kind::variable_begin) {
        auto output = make(StatementKind::output);
        output->expressions.push_back(expressions_.tuple());
        stream_.expect(Token::Kind::variable_end, "'}}'");
        result.push_back(std::move(output));
      } else {
        if (std::any_of(ends.begin(), ends.end(), [&](const auto& end) { return stream_.is_name(end); })) {
          --depth_;
          return result;
        }
        result.push_back(statement());
      }
    }
    if (!ends.empty()) {
      TokenStream::raise(base::ErrorCode::corrupt, opened, "'" + ends.back() + "' is missing");
    }
    --depth_;
    return result;
  }

  // The body of a statement that ends with `end`, past its closing tag.
  Body body_until(const std::string& end) {
    Body result = body({end});
    stream_.expect_name(end);
    end_tag();
    return result;
  }

  std::unique_ptr<Statement> statement() {
    if (!stream_.is(Token::Kind::name)) stream_.expect_any_name();
    const std::string name = stream_.look().text;
    if (name == "if") return branch();
    if (name == "for") return loop();
    if (name == "set") return assign();
    if (name == "macro") return macro();
    if (name == "filter") return filter_body();
    if (name == "with") return scope();
    if (name == "generation") {
      auto result = make(StatementKind::group);
      stream_.next();
      end_tag();
      result->bodies.push_back(body_until("endgeneration"));
      return result;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) stream_.fail("'" + name + "' outside of a loop");
      auto result = make(name == "break" ? StatementKind::break_loop : StatementKind::continue_loop);
      stream_.next();
      end_tag();
      return result;
    }
    if (name.starts_with("end") || name == "else" || name == "elif") {
      stream_.fail("'" + name + "' without what it belongs to");
    }
    stream_.unsupported("statement '" + name.substr(0, 40) + "'");
  }

  std::unique_ptr<Statement> branch() {
    auto result = make(StatementKind::branch);
    while (true) {
      stream_.next();  // if, elif
      result->expressions.push_back(expressions_.tuple(false));
      end_tag();
      result->bodies.push_back(body({"elif", "else", "endif"}));
      if (!stream_.is_name("elif")) break;
    }
    if (stream_.skip_name("else")) {
      end_tag();
      result->bodies.push_back(body({"endif"}));
    }
    stream_.expect_name("endif");
    end_tag();
    return result;
  }

  Target target(bool with_attribute) {
    Target result;
    const bool bracketed = stream_.skip_symbol("(");
    result.names.push_back(stream_.expect_any_name());
    if (with_attribute && stream_.skip_symbol(".")) {
      result.attribute = stream_.expect_any_name();
      return result;
    }
    while (stream_.skip_symbol(",")) {
      result.unpacks = true;
      if (stream_.is(Token::Kind::name) && !stream_.is_name("in")) result.names.push_back(stream_.next().text);
    }
    if (bracketed) stream_.expect_symbol(")");
    return result;
  }

  std::unique_ptr<Statement> loop() {
    auto result = make(StatementKind::loop);
    stream_.next();
    result->target = target(false);
    stream_.expect_name("in");
    result->expressions.push_back(expressions_.tuple(false));
    result->expressions.push_back(stream_.skip_name("if") ? expressions_.expression() : nullptr);
    if (stream_.is_name("recursive")) stream_.unsupported("'recursive' of a loop");
    end_tag();
    ++loops_;
    result->bodies.push_back(body({"else", "endfor"}));
    --loops_;
    if (stream_.skip_name("else")) {
      end_tag();
      result->bodies.push_back(body({"endfor"}));
    }
    stream_.expect_name("endfor");
    end_tag();
    return result;
  }

  std::unique_ptr<Statement> assign() {
    auto result = make(StatementKind::assign);
    stream_.next();
    result->target = target(true);
    if (stream_.skip_symbol("=")) {
      result->expressions.push_back(expressions_.tuple());
      end_tag();
      return result;
    }
    result->kind = StatementKind::assign_body;
    result->expressions.push_back(stream_.is_symbol("|") ? expressions_.filters(nullptr, false) : nullptr);
    end_tag();
    result->bodies.push_back(body_until("endset"));
    return result;
  }

  std::unique_ptr<Statement> macro() {
    auto result = make(StatementKind::macro);
    stream_.next();
    result->target.names.push_back(stream_.expect_any_name());
    stream_.expect_symbol("(");
    while (!stream_.is_symbol(")")) {
      if (!result->parameters.empty()) stream_.expect_symbol(",");
      result->parameters.push_back(stream_.expect_any_name());
      result->expressions.push_back(stream_.skip_symbol("=") ? expressions_.expression() : nullptr);
    }
    stream_.expect_symbol(")");
    end_tag();
    const int loops = std::exchange(loops_, 0);
    result->bodies.push_back(body_until("endmacro"));
    loops_ = loops;
    return result;
  }

  std::unique_ptr<Statement> filter_body() {
    auto result = make(StatementKind::filter_body);
    stream_.next();
    result->expressions.push_back(expressions_.filters(nullptr, true));
    end_tag();
    result->bodies.push_back(body_until("endfilter"));
    return result;
  }

  std::unique_ptr<Statement> scope() {
    auto result = make(StatementKind::scope);
    stream_.next();
    while (!stream_.is(Token::Kind::block_end)) {
      if (!result->parameters.empty()) stream_.expect_symbol(",");
      result->parameters.push_back(stream_.expect_any_name());
      stream_.expect_symbol("=");
      result->expressions.push_back(expressions_.expression());
    }
    end_tag();
    result->bodies.push_back(body_until("endwith"));
    return result;
  }

  TokenStream stream_;
  ExpressionParser expressions_;
  int depth_ = 0;
  int loops_ = 0;
};

}  // namespace

Body parse(std::string_view source) { return Parser(source).run(); }

}  // namespace cepe::text::jinja
