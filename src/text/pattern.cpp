#include "text/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/processor_time.h"
#include "text/utf8.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;

constexpr size_t longest_expression = size_t{64} << 10;
// Short texts take no time, and the end of an answer is decoded after an interrupt.
constexpr size_t uninterrupted_bytes = size_t{16} << 10;

// PCRE2 cannot be stopped, and each step may read the whole text. So a search begins at a few places with a few steps
// for each, which the words of a text never need, and goes on with twice as many after a look at the clock.
constexpr size_t places_at_first = 64;
constexpr uint32_t steps_at_first = 64;
constexpr double characters_between_looks = 1 << 30;
// A hundred times what the expressions of published models take, and several times that without compiled code.
constexpr double seconds_for_any_text = 1, seconds_a_byte = 1e-6;

// White_Space and \w as Oniguruma knows them; PCRE2's own classes differ in a few characters.
constexpr std::string_view space_members =
    R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view word_members = R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc})";

std::string_view members_of(char escape) {
  switch (escape) {
    case 's':
    case 'S':
      return space_members;
    case 'w':
    case 'W':
      return word_members;
    case 'd':
    case 'D':
      return R"(\p{Nd})";
    case 'h':
    case 'H':
      return "0-9a-fA-F";
    default:
      return {};
  }
}

// Oniguruma's expression in PCRE2's words.
std::string translate(std::string_view expression, const std::string& where) {
  std::string out;
  int class_depth = 0;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '\\' && i + 1 < expression.size()) {
      const char escape = expression[++i];
      const auto members = members_of(escape);
      const bool negated = escape >= 'A' && escape <= 'Z';
      if (members.empty() || (class_depth > 0 && negated)) {
        (out += '\\') += escape;
      } else if (class_depth > 0) {
        out += members;
      } else {
        ((out += negated ? "[^" : "[") += members) += ']';
      }
      continue;
    }
    if (class_depth > 0 && c == '&' && expression.substr(i, 2) == "&&") {
      throw Error(ErrorCode::unsupported, where +
                                              ": class intersections (&&) in regular expressions are not supported: " +
                                              std::string(expression.substr(0, 200)));
    }
    if (class_depth > 0 && c == '[' && expression.substr(i, 2) != "[:") {
      throw Error(ErrorCode::unsupported, where +
                                              ": classes within classes of regular expressions are not supported: " +
                                              std::string(expression.substr(0, 200)));
    }
    out += c;
    if (class_depth == 0 && c == '[') {
      class_depth = 1;
      if (expression.substr(i + 1, 1) == "^") out += expression[++i];
      if (expression.substr(i + 1, 1) == "]") (out += '\\') += expression[++i];
    } else if (class_depth > 0 && c == '[') {  // [:name:]
      const size_t end = expression.find(":]", i + 2);
      if (end == std::string_view::npos) continue;
      out += expression.substr(i + 1, end + 1 - i);
      i = end + 1;
    } else if (class_depth > 0 && c == ']') {
      class_depth = 0;
    }
  }
  return out;
}

// Whether a search from a later place finds what one from an earlier place would have found there: not where the
// expression asks for the place or ends a whole search.
bool can_search_by_places(std::string_view translated) {
  return translated.find("\\G") == std::string_view::npos && translated.find("(*") == std::string_view::npos;
}

struct Compiled {
  std::shared_ptr<const void> code;
  bool by_places;
};

Compiled compile(const std::string& expression, const std::string& where) {
  if (expression.size() > longest_expression) {
    throw Error(ErrorCode::unsupported, where + ": a regular expression of " + std::to_string(expression.size()) +
                                            " bytes; at most " + std::to_string(longest_expression) + " are supported");
  }
  const std::string translated = translate(expression, where);
  int problem = 0;
  PCRE2_SIZE at = 0;
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_parens_nest_limit(context.get(), 50);
  // Ruby's ^ and $ always match at lines.
  constexpr uint32_t options =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options,
                                   &problem, &at, context.get());
  if (!code) {
    unsigned char message[160] = {};
    pcre2_get_error_message(problem, message, sizeof message);
    throw Error(ErrorCode::corrupt, where + ": the regular expression '" + expression.substr(0, 200) +
                                        "' cannot be compiled: " + reinterpret_cast<const char*>(message));
  }
  std::shared_ptr<const void> owner(code, [](const void* pointer) {
    pcre2_code_free(const_cast<pcre2_code*>(static_cast<const pcre2_code*>(pointer)));
  });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where it fails the interpreter matches
  return {std::move(owner), can_search_by_places(translated)};
}

}  // namespace

struct Matcher::State {
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  double begun = base::thread_seconds();  // a machine with much else to do takes no text less
  size_t bytes = 0;                       // of all texts so far
  double unlooked = 0;                    // characters that may have been read since the clock was
};

Pattern Pattern::literal(std::string text) {
  Pattern pattern;
  pattern.source_ = std::move(text);
  return pattern;
}

Pattern Pattern::regex(const std::string& expression, const std::string& where) {
  Pattern pattern;
  pattern.source_ = expression;
  pattern.where_ = where;
  const Compiled compiled = compile(expression, where);
  pattern.code_ = compiled.code;
  pattern.by_places_ = compiled.by_places;
  return pattern;
}

Pattern Pattern::from_json(const base::Json& json, const std::string& where) {
  if (json.is_string()) return literal(json.get<std::string>());
  if (base::json_has(json, "Regex")) return regex(base::json_string(json, "Regex", where), where);
  return literal(base::json_string(json, "String", where));
}

Matcher::Matcher(const Pattern& pattern) : pattern_(pattern) {
  if (pattern.is_literal()) return;
  state_ = std::make_unique<State>();
  state_->data = pcre2_match_data_create(1, nullptr);
  state_->context = pcre2_match_context_create(nullptr);
  if (!state_->data || !state_->context) throw std::bad_alloc();
  pcre2_set_heap_limit(state_->context, 64 * 1024);  // KiB
}

Matcher::~Matcher() {
  if (!state_) return;
  pcre2_match_data_free(state_->data);
  pcre2_match_context_free(state_->context);
}

void Matcher::refuse(const std::string& why) const {
  throw Error(ErrorCode::unsupported,
              pattern_.where_ + ": the regular expression '" + pattern_.source_.substr(0, 200) + "' " + why);
}

// So many steps may each have read so many characters.
void Matcher::charge(double steps, size_t characters) {
  state_->unlooked += steps * static_cast<double>(characters);
  if (state_->unlooked < characters_between_looks) return;
  state_->unlooked = 0;
  const double allowed = seconds_for_any_text + seconds_a_byte * static_cast<double>(state_->bytes);
  if (base::thread_seconds() - state_->begun <= allowed) return;
  refuse("takes too long: more than " + std::to_string(static_cast<int64_t>(allowed)) + " s for " +
         std::to_string(state_->bytes) + " bytes of text; take another tokenizer, or a text of shorter lines");
}

// The first match from `at` on: what pcre2_match gives for all places and steps.
int Matcher::find_next(std::string_view text, size_t at) {
  const auto* code = static_cast<const pcre2_code*>(pattern_.code_.get());
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  // A sound expression takes a few steps a character; ten times as many are a trap.
  const auto most_steps = static_cast<uint32_t>(std::min<size_t>(100'000 + 20 * text.size(), 100'000'000));
  size_t places = pattern_.by_places_ ? places_at_first : text.size() + 1;
  uint32_t steps = steps_at_first;
  while (true) {
    if (text.size() > uninterrupted_bytes) base::throw_if_interrupted();
    size_t next = std::min(at + places, text.size() + 1);
    while (next < text.size() && (static_cast<unsigned char>(text[next]) & 0xc0) == 0x80) ++next;
    pcre2_set_offset_limit(state_->context, next - 1);
    pcre2_set_match_limit(state_->context, steps);
    uint32_t options = PCRE2_NO_UTF_CHECK;
    int found = pcre2_match(code, subject, text.size(), at, options, state_->data, state_->context);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      options |= PCRE2_NO_JIT;
      found = pcre2_match(code, subject, text.size(), at, options, state_->data, state_->context);
    }
    charge(found < 0 ? static_cast<double>(next - at) * steps : 1, text.size() - at);
    if (found == PCRE2_ERROR_NOMATCH && next <= text.size()) {
      at = next;
      places *= 2;
    } else if (found == PCRE2_ERROR_MATCHLIMIT && steps < most_steps) {
      if (pattern_.by_places_) places = std::max<size_t>(places / 2, 1);
      steps = std::min(2 * steps, most_steps);
    } else {
      return found;
    }
  }
}

void Matcher::find_all(std::string_view text, std::vector<Range>& matches) {
  matches.clear();
  if (pattern_.is_literal()) {
    const std::string& wanted = pattern_.source_;
    if (wanted.empty()) return;
    for (size_t at = text.find(wanted); at != std::string_view::npos; at = text.find(wanted, at + wanted.size())) {
      matches.push_back({at, at + wanted.size()});
    }
    return;
  }
  state_->bytes += text.size();
  size_t last_end = 0;
  for (size_t at = 0; at <= text.size();) {
    const int found = find_next(text, at);
    if (found == PCRE2_ERROR_NOMATCH) return;
    if (found < 0) refuse("needs too many steps for this text (PCRE2 " + std::to_string(found) + ")");
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state_->data);
    const Range match{offsets[0], offsets[1]};
    if (match.end < match.begin || match.begin < last_end) refuse("yields matches out of order");  // \K can move it
    matches.push_back(match);
    last_end = match.end;
    at = match.end;
    if (match.begin == match.end) at += at < text.size() ? character_at(text, at).size : 1;
  }
}

std::string replace_all(std::string_view text, const Pattern& pattern, std::string_view content, size_t limit) {
  Matcher matcher(pattern);
  std::vector<Range> matches;
  matcher.find_all(text, matches);
  size_t size = text.size() + matches.size() * content.size();
  for (const Range& match : matches) size -= match.end - match.begin;
  if (size > limit) {
    throw Error(ErrorCode::unsupported, "replacing '" + pattern.source().substr(0, 80) + "' makes a text of " +
                                            std::to_string(text.size()) + " bytes longer than " +
                                            std::to_string(limit) + " bytes");
  }
  std::string out;
  size_t done = 0;
  for (const Range& match : matches) {
    out += text.substr(done, match.begin - done);
    out += content;
    done = match.end;
  }
  out += text.substr(done);
  return out;
}

}  // namespace cepe::text
