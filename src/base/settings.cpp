#include "base/settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <sstream>

#include "base/error.h"

namespace cepe::base {

const SettingNode* SettingNode::find(std::string_view key) const {
  for (const auto& [name, node] : fields) {
    if (name == key) return &node;
  }
  return nullptr;
}

namespace settings_detail {
namespace {

std::string at(const SettingNode& node, const std::string& path) {
  return node.place + ": " + (path.empty() ? "the settings" : "'" + path + "'");
}

std::string shown(const SettingNode& node) {
  switch (node.kind) {
    case SettingNode::Kind::nothing:
      return "nothing";
    case SettingNode::Kind::sequence:
      return "a list";
    case SettingNode::Kind::mapping:
      return "a group of fields";
    case SettingNode::Kind::scalar:
      break;
  }
  return "'" + node.scalar.substr(0, 80) + "'";
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, changed}));
    }
  }
  return row.back();
}

template <class Number>
Number parse_number(const SettingNode& node, const std::string& path, const FieldRule& rule, const char* what) {
  const std::string expected = what + bounds(rule);
  if (node.kind != SettingNode::Kind::scalar || node.quoted) wrong(node, path, expected);
  std::string text;
  for (const char byte : node.scalar) {
    if (byte != '_') text += byte;  // 20_000
  }
  const char* begin = text.data() + (text.starts_with('+') && !text.starts_with("+-") ? 1 : 0);
  const char* end = text.data() + text.size();
  Number number{};
  const auto result = std::from_chars(begin, end, number);
  if (result.ec != std::errc() || result.ptr != end) wrong(node, path, expected);
  const auto value = static_cast<double>(number);
  if (!std::isfinite(value) || value < rule.least || value > rule.most) wrong(node, path, expected);
  return number;
}

std::string number_text(double value) {
  std::array<char, 32> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return {buffer.data(), end.ptr};
}

}  // namespace

std::string nearest(std::string_view wanted, const std::vector<std::string>& known) {
  std::string best;
  size_t least = std::max<size_t>(3, wanted.size() / 2 + 1);
  for (const std::string& one : known) {
    const size_t distance = edit_distance(wanted.substr(0, 80), one);
    if (distance < least) {
      least = distance;
      best = one;
    }
  }
  return best;
}

void wrong(const SettingNode& node, const std::string& path, const std::string& expected) {
  throw Error(ErrorCode::invalid_argument, at(node, path) + " must be " + expected + ", found " + shown(node));
}

void unknown_field(const SettingNode& node, const std::string& path, const std::vector<std::string>& known) {
  const size_t dot = path.rfind('.');
  const std::string close = nearest(path.substr(dot == std::string::npos ? 0 : dot + 1), known);
  std::string hint = close.empty() ? "known are:" : "did you mean '" + close + "'?";
  if (close.empty()) {
    for (const std::string& one : known) hint += " " + one;
  }
  throw Error(ErrorCode::invalid_argument, at(node, path.substr(0, 200)) + " is no field; " + hint);
}

void expect_kind(const SettingNode& node, SettingNode::Kind kind, const std::string& path) {
  if (node.kind != kind) wrong(node, path, kind == SettingNode::Kind::sequence ? "a list" : "a group of fields");
}

void read_scalar(const SettingNode& node, const std::string& path, const FieldRule&, bool& value) {
  const bool plain = node.kind == SettingNode::Kind::scalar && !node.quoted;
  if (!plain || (node.scalar != "true" && node.scalar != "false")) wrong(node, path, "true or false");
  value = node.scalar == "true";
}

void read_scalar(const SettingNode& node, const std::string& path, const FieldRule& rule, int32_t& value) {
  value = parse_number<int32_t>(node, path, rule, "an integer of 32 bits");
}

void read_scalar(const SettingNode& node, const std::string& path, const FieldRule& rule, int64_t& value) {
  value = parse_number<int64_t>(node, path, rule, "an integer");
}

void read_scalar(const SettingNode& node, const std::string& path, const FieldRule& rule, double& value) {
  value = parse_number<double>(node, path, rule, "a number");
}

void read_scalar(const SettingNode& node, const std::string& path, const FieldRule& rule, std::string& value) {
  if (node.kind != SettingNode::Kind::scalar) wrong(node, path, "text" + bounds(rule));
  const bool known =
      rule.choices.empty() || std::find(rule.choices.begin(), rule.choices.end(), node.scalar) != rule.choices.end();
  if (!known) wrong(node, path, "text" + bounds(rule));
  value = node.scalar;
}

std::string print_scalar(bool value) { return value ? "true" : "false"; }
std::string print_scalar(int32_t value) { return std::to_string(value); }
std::string print_scalar(int64_t value) { return std::to_string(value); }
std::string print_scalar(double value) { return number_text(value); }

// Always in double quotes: no text can then be taken for a number, a null or a list.
std::string print_scalar(const std::string& value) {
  std::string text = "\"";
  static constexpr char digits[] = "0123456789ABCDEF";
  for (const char byte : value) {
    const auto code = static_cast<unsigned char>(byte);
    if (byte == '"' || byte == '\\') {
      text += std::string{'\\', byte};
    } else if (byte == '\n') {
      text += "\\n";
    } else if (code < 0x20 || code == 0x7f) {
      text += std::string{'\\', 'x', digits[code >> 4], digits[code & 15]};
    } else {
      text += byte;
    }
  }
  return text + "\"";
}

std::string bounds(const FieldRule& rule) {
  if (!rule.choices.empty()) {
    std::string names;
    for (const std::string_view choice : rule.choices) names += (names.empty() ? "" : ", ") + std::string(choice);
    return " (one of " + names + ")";
  }
  const bool least = std::isfinite(rule.least), most = std::isfinite(rule.most);
  if (least && most) return " (" + number_text(rule.least) + " to " + number_text(rule.most) + ")";
  if (least) return " (at least " + number_text(rule.least) + ")";
  if (most) return " (at most " + number_text(rule.most) + ")";
  return "";
}

void Reader::finish() const {
  for (const auto& [name, node] : node_.fields) {
    if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
      unknown_field(node, path_.empty() ? name : path_ + "." + name, known_);
    }
  }
}

void Reader::invalid(const SettingNode& node, const std::string& path, const std::string& what) {
  throw Error(ErrorCode::invalid_argument, at(node, path) + ": " + what);
}

void Printer::line(const char* name, const std::string& value, const FieldRule& rule) {
  if (with_help_ && !rule.help.empty()) {
    if (!first_of_item_) text += std::string(depth_, ' ');
    text += "# " + std::string(rule.help) + bounds(rule) + "\n";
    text += std::string(depth_, ' ');
  } else if (!first_of_item_) {
    text += std::string(depth_, ' ');
  }
  first_of_item_ = false;
  text += std::string(name) + ":" + (value.empty() ? "" : " " + value) + "\n";
}

void Printer::open(const char* name, const FieldRule& rule) {
  line(name, "", rule);
  depth_ += 2;
}

void Printer::item() {
  text += std::string(depth_, ' ') + "- ";
  depth_ += 2;
  first_of_item_ = true;
}

}  // namespace settings_detail
}  // namespace cepe::base
