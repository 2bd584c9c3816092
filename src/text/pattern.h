// What a tokenizer splits or replaces by: a literal text or a regular expression (PCRE2, compiled just in time).
// Expressions come from files of strangers: each match has a limit of steps, so that none takes exponential time, and
// all matches together one of time that grows with the text, for those that look far ahead from every place.
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
  bool by_places_ = false;            // whether a search may be made from some places after the other
};

// Finds the matches of one pattern; keeps what matching needs between texts. One thread at a time.
class Matcher {
 public:
  explicit Matcher(const Pattern& pattern);
  ~Matcher();
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;
  // All matches in order, none overlapping; `matches` is cleared first. `text` is UTF-8.
  // Errors: unsupported where the expression needs too many steps, or too much of the thread's time for what this
  // matcher has been given so far; base::Interrupted (long texts).
  void find_all(std::string_view text, std::vector<Range>& matches);

 private:
  struct State;
  int find_next(std::string_view text, size_t at);
  void charge(double steps, size_t characters);
  [[noreturn]] void refuse(const std::string& why) const;
  const Pattern& pattern_;
  std::unique_ptr<State> state_;
};

// `text` with every match replaced. Errors: unsupported where the result would exceed `limit` bytes.
std::string replace_all(std::string_view text, const Pattern& pattern, std::string_view content, size_t limit);

}  // namespace cepe::text
