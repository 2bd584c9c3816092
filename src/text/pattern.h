// What a tokenizer splits or replaces by: a literal text or a regular expression (PCRE2, compiled just in time).
// Expressions come from files of strangers: each match has a step limit, so none takes exponential time. One that looks
// far ahead from every place still takes the square of a text's length.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace cepe::text {

struct Range {
  size_t begin = 0;
  size_t end = 0;
};

class Pattern {
 public:
  static Pattern literal(std::string text);
  // The dialect of tokenizer.json (Oniguruma's). Errors: corrupt (syntax), unsupported; both name `where`.
  static Pattern regex(const std::string& expression, const std::string& where);
  // {"String": ...} or {"Regex": ...}. Errors as above.
  static Pattern from_json(const base::Json& json, const std::string& where);

  const std::string& source() const { return source_; }
  bool is_literal() const { return code_ == nullptr; }

 private:
  friend class Matcher;
  std::string source_;
  std::string where_;
  std::shared_ptr<const void> code_;  // pcre2_code; null for a literal
};

// Finds the matches of one pattern; keeps what matching needs between texts. One thread at a time.
class Matcher {
 public:
  explicit Matcher(const Pattern& pattern);
  ~Matcher();
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;
  // All matches in order, none overlapping; `matches` is cleared first. `text` is UTF-8.
  // Errors: unsupported where the expression needs too many steps; base::Interrupted (long texts).
  void find_all(std::string_view text, std::vector<Range>& matches);

 private:
  struct State;
  const Pattern& pattern_;
  std::unique_ptr<State> state_;
};

// `text` with every match replaced. Errors: unsupported where the result would exceed `limit` bytes.
std::string replace_all(std::string_view text, const Pattern& pattern, std::string_view content, size_t limit);

}  // namespace cepe::text
