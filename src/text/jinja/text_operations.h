// Python's operations on strings, over UTF-8 and with the mask of each byte carried along. A byte that is no UTF-8
// counts as one character. Pure functions: the caller charges the budget.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace cepe::text::jinja {

// Position after the character that begins at `begin` (< text.size()).
size_t next_character(std::string_view text, size_t begin);
size_t count_characters(std::string_view text);
// Linear in the worst case, which std::string::find is not; npos where there is none.
size_t find_in(std::string_view text, std::string_view wanted, size_t begin);

enum class Side { left, right, both };
// Without `characters` white space is stripped.
Text strip(const Text& text, Side side, const std::optional<std::string>& characters);
// Without a separator splits at runs of white space. At most `limit` splits where it is not negative.
std::vector<Text> split(const Text& text, const std::optional<std::string>& separator, int64_t limit);
std::vector<Text> split_from_right(const Text& text, const std::string& separator, int64_t limit);
std::vector<Text> split_lines(const Text& text, bool keep_ends);
// `limit` negative: all.
Text replace(const Text& text, const std::string& from, const Text& to, int64_t limit);
enum class Case { upper, lower, title, capital };
Text change_case(const Text& text, Case to);
Text indent(const Text& text, const Text& indentation, bool first, bool blank);
// text[start:stop:step] in characters.
Text slice_text(const Text& text, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step);
// Python's clipping of a slice to [0, length]: first index, number of indices.
struct SliceRange {
  int64_t start = 0;
  int64_t count = 0;
};
SliceRange slice_range(int64_t length, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step);

void append_quoted(Text& out, const Text& text);       // as repr()
void append_json_string(Text& out, const Text& text);  // as json.dumps(ensure_ascii=False)
Text escape_html(const Text& text);
std::string format_number(double number);  // as repr()

}  // namespace cepe::text::jinja
