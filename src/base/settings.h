// Settings: YAML -> plain structs, `key.sub=value` on top, and back. A struct declares its fields once, in a function
// found by its argument:
//
//   struct Optimiser { double rate = 3e-4; std::string schedule = "cosine"; };
//   template <class Visitor>
//   void visit(Visitor& visitor, Optimiser& optimiser) {
//     visitor.field("rate", optimiser.rate, {.help = "peak learning rate", .least = 0, .most = 1});
//     visitor.field("schedule", optimiser.schedule, {.help = "how it decays", .choices = {"cosine", "constant"}});
//   }
//   void validate(const Optimiser&);  // optional: what no single field can say; throws base::Error
//
// Fields: bool, int32_t, int64_t, double, std::string, std::optional and std::vector of these, structs with a visit,
// and vectors of such structs. A field that the file does not name keeps the value it has.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cepe::base {

// What a field may hold, beside its type. Bounds are for numbers, choices for strings (empty: any).
struct FieldRule {
  std::string_view help = "";
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  std::vector<std::string_view> choices = {};
};

struct SettingField;

// A tree of settings as read: YAML without anchors, tags or duplicate keys, each node with its place.
struct SettingNode {
  enum class Kind { nothing, scalar, sequence, mapping } kind = Kind::nothing;
  std::string place;    // "recipe.yaml, line 3", "command line"
  std::string scalar;   // as written
  bool quoted = false;  // a quoted scalar is a string whatever it looks like
  std::vector<SettingNode> items;
  std::vector<SettingField> fields;

  const SettingNode* find(std::string_view key) const;
};

struct SettingField {
  std::string name;
  SettingNode node;
};

// Errors: corrupt for what is no YAML, is nested deeper than 16 levels, is larger than 1 MiB, uses aliases or names a
// key twice; always with file and line.
SettingNode parse_settings(std::string_view yaml, const std::string& where);
// Sets the scalar or flow value of `key.sub=value` in the tree; list items by number ("stages.0.steps=5").
// Errors: invalid_argument.
void override_setting(SettingNode& root, std::string_view assignment);
// Both: the text with the assignments over it.
SettingNode parse_settings(std::string_view yaml, const std::string& where, std::span<const std::string> overrides);

namespace settings_detail {

std::string nearest(std::string_view wanted, const std::vector<std::string>& known);  // "" where none is near
[[noreturn]] void wrong(const SettingNode& node, const std::string& path, const std::string& expected);
[[noreturn]] void unknown_field(const SettingNode& node, const std::string& path,
                                const std::vector<std::string>& known);
void expect_kind(const SettingNode& node, SettingNode::Kind kind, const std::string& path);

void read_scalar(const SettingNode& node, const std::string& path, const FieldRule& rule, bool& value);
void read_scalar(const SettingNode& node, const std::string& path, const FieldRule& rule, int32_t& value);
void read_scalar(const SettingNode& node, const std::string& path, const FieldRule& rule, int64_t& value);
void read_scalar(const SettingNode& node, const std::string& path, const FieldRule& rule, double& value);
void read_scalar(const SettingNode& node, const std::string& path, const FieldRule& rule, std::string& value);
std::string print_scalar(bool value);
std::string print_scalar(int32_t value);
std::string print_scalar(int64_t value);
std::string print_scalar(double value);
std::string print_scalar(const std::string& value);
std::string bounds(const FieldRule& rule);  // " (0 to 1)", " (one of ...)", ""

template <class T>
concept Scalar = std::same_as<T, bool> || std::same_as<T, int32_t> || std::same_as<T, int64_t> ||
    std::same_as<T, double> || std::same_as<T, std::string>;
template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
concept Validated = requires(const T& settings) {
  validate(settings);
};

class Reader {
 public:
  Reader(const SettingNode& node, std::string path) : node_(node), path_(std::move(path)) {}

  template <class T>
  void field(const char* name, T& value, const FieldRule& rule = {}) {
    known_.emplace_back(name);
    if (const SettingNode* found = node_.find(name))
      read(*found, path_.empty() ? name : path_ + "." + name, rule, value);
  }

  // After the visit: whatever the file named must have been asked for.
  void finish() const;

  template <class T>
  static void read(const SettingNode& node, const std::string& path, const FieldRule& rule, T& value) {
    if constexpr (Scalar<T>) {
      read_scalar(node, path, rule, value);
    } else if constexpr (IsOptional<T>::value) {
      value.reset();
      if (node.kind != SettingNode::Kind::nothing) read(node, path, rule, value.emplace());
    } else if constexpr (IsVector<T>::value) {
      expect_kind(node, SettingNode::Kind::sequence, path);
      value.clear();
      for (const SettingNode& item : node.items) {
        typename T::value_type one{};  // a vector<bool> has no references to its items
        read(item, path + "." + std::to_string(value.size()), rule, one);
        value.push_back(std::move(one));
      }
    } else {
      if (node.kind != SettingNode::Kind::nothing) expect_kind(node, SettingNode::Kind::mapping, path);
      Reader reader(node, path);
      visit(reader, value);
      reader.finish();
      if constexpr (Validated<T>) check(node, path, value);
    }
  }

 private:
  template <class T>
  static void check(const SettingNode& node, const std::string& path, const T& value) {
    try {
      validate(value);
    } catch (const std::exception& error) {
      invalid(node, path, error.what());
    }
  }
  [[noreturn]] static void invalid(const SettingNode& node, const std::string& path, const std::string& what);

  const SettingNode& node_;
  std::string path_;
  std::vector<std::string> known_;
};

class Printer {
 public:
  explicit Printer(bool with_help) : with_help_(with_help) {}

  template <class T>
  void field(const char* name, T& value, const FieldRule& rule = {}) {
    if constexpr (Scalar<T>) {
      line(name, print_scalar(value), rule);
    } else if constexpr (IsOptional<T>::value) {
      if (value) return field(name, *value, rule);
      line(name, "null", rule);
    } else if constexpr (IsVector<T>::value) {
      list(name, value, rule);
    } else {
      open(name, rule);
      visit(*this, value);
      close();
    }
  }

  std::string text;

 private:
  template <class T>
  void list(const char* name, std::vector<T>& values, const FieldRule& rule) {
    if constexpr (Scalar<T>) {
      std::string items;
      for (const T& value : values) items += (items.empty() ? "" : ", ") + print_scalar(value);
      line(name, "[" + items + "]", rule);
    } else if (values.empty()) {
      line(name, "[]", rule);
    } else {
      open(name, rule);
      for (T& value : values) {
        item();
        visit(*this, value);
        close();
      }
      close();
    }
  }
  void line(const char* name, const std::string& value, const FieldRule& rule);
  void open(const char* name, const FieldRule& rule);
  void item();
  void close() { depth_ -= 2; }

  bool with_help_;
  bool first_of_item_ = false;
  size_t depth_ = 0;
};

}  // namespace settings_detail

// Sets the fields that the tree names. Errors: invalid_argument naming file, line and field: an unknown key (with the
// nearest known one), a wrong type, a value out of range, or what `validate` of a struct says.
template <class Struct>
void read_settings(const SettingNode& root, Struct& settings) {
  settings_detail::Reader::read(root, "", {}, settings);
}

// YAML text and overrides at once.
template <class Struct>
void read_settings(std::string_view yaml, const std::string& where, std::span<const std::string> overrides,
                   Struct& settings) {
  read_settings(parse_settings(yaml, where, overrides), settings);
}

// The settings as YAML that read_settings takes back; with_help adds what each field is and may hold as comments.
template <class Struct>
std::string print_settings(const Struct& settings, bool with_help = false) {
  settings_detail::Printer printer(with_help);
  Struct copy = settings;  // visit takes a reference that a reader may write to
  visit(printer, copy);
  return printer.text;
}

}  // namespace cepe::base
