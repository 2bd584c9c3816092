#include "base/parse_values.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

#include "base/error.h"

namespace cepe::base {
namespace {

[[noreturn]] void refuse(const std::string& option, const std::string& text, const char* expected) {
  throw Error(ErrorCode::invalid_argument, option + " '" + text + "': expected " + expected);
}

// 1, 1024, 1024^2...; 0 for what is no unit.
double unit_of(std::string text) {
  std::erase(text, ' ');
  if (text.empty() || text == "B") return 1;
  const size_t power = std::string("KMGT").find(static_cast<char>(std::toupper(static_cast<unsigned char>(text[0]))));
  if (power == std::string::npos) return 0;
  const std::string rest = text.substr(1);
  if (!rest.empty() && rest != "B" && rest != "iB" && rest != "b") return 0;
  return std::pow(1024.0, static_cast<double>(power + 1));
}

// Non-negative, with a unit; negative where it is no such thing or too large to be meant.
double scaled_number(const std::string& text) {
  double value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (problem != std::errc() || !(value >= 0)) return -1;
  const double unit = unit_of(std::string(end, text.data() + text.size()));
  const double scaled = value * unit;
  return unit > 0 && scaled <= 0x1p53 ? scaled : -1;
}

std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  if (text.empty() || text.back() == ',') parts.emplace_back();
  return parts;
}

// A layer number; -1 where it is none.
int64_t layer_number(std::string_view text) {
  int64_t value = -1;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  return problem == std::errc() && end == text.data() + text.size() && value >= 0 && value <= 4096 ? value : -1;
}

}  // namespace

int64_t parse_bytes(const std::string& text, const std::string& option) {
  const double bytes = scaled_number(text);
  if (bytes < 0 || bytes != bytes) refuse(option, text, "a size such as 500M or 8G");
  return static_cast<int64_t>(bytes);
}

std::vector<int64_t> parse_layers(const std::string& text, const std::string& option) {
  constexpr const char* expected = "layer numbers and ranges from 0, such as 8-29 or 0,2,4-6";
  std::vector<int64_t> layers;
  for (const std::string& part : split_at_commas(text)) {
    const size_t dash = part.find('-');
    const int64_t first = layer_number(std::string_view(part).substr(0, dash));
    const int64_t last = dash == std::string::npos ? first : layer_number(std::string_view(part).substr(dash + 1));
    if (first < 0 || last < first) refuse(option, text, expected);
    for (int64_t layer = first; layer <= last; ++layer) layers.push_back(layer);
  }
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  return layers;
}

std::vector<int64_t> parse_counts(const std::string& text, const std::string& option) {
  std::vector<int64_t> counts;
  for (const std::string& part : split_at_commas(text)) {
    const double count = part.empty() ? -1 : scaled_number(part);
    if (count < 0 || count != std::floor(count) || count > 0x1p30)
      refuse(option, text, "token counts such as 0,8K,32K");
    counts.push_back(static_cast<int64_t>(count));
  }
  return counts;
}

}  // namespace cepe::base
