// YAML events (yaml-cpp) -> SettingNode, and overrides of the command line.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <charconv>
#include <sstream>

#include "base/error.h"
#include "base/settings.h"

namespace cepe::base {
namespace {

constexpr size_t max_bytes = size_t{1} << 20;
constexpr size_t max_setting_depth = 16;

// Builds the tree while yaml-cpp parses, so that depth is refused before it costs anything.
class Builder : public YAML::EventHandler {
 public:
  Builder(SettingNode& root, const std::string& where, bool lines) : where_(where), lines_(lines) {
    open_.push_back({&root, "", false});
  }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    if (takes_key(mark, "")) return;
    place(SettingNode::Kind::nothing, mark);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { fail(mark, "aliases ('*name') are not read here"); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, const std::string& value) override {
    check_tag(mark, tag);
    // A name that the system would take to end there: another file would be read or written.
    if (value.find('\0') != std::string::npos)
      fail(mark, "'" + value.substr(0, 80) + "' holds a NUL character; leave it out");
    if (takes_key(mark, value)) return;
    SettingNode& node = place(SettingNode::Kind::scalar, mark);
    node.scalar = value;
    node.quoted = tag == "!";
    if (!node.quoted && (value == "~" || value == "null" || value.empty())) node.kind = SettingNode::Kind::nothing;
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(SettingNode::Kind::sequence, mark, tag);
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, YAML::EmitterStyle::value) override {
    open(SettingNode::Kind::mapping, mark, tag);
  }
  void OnMapEnd() override { open_.pop_back(); }

  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& what) const {
    throw Error(ErrorCode::corrupt, at(mark) + ": " + what);
  }

 private:
  struct Open {
    SettingNode* node;
    std::string key;
    bool has_key;
  };

  std::string at(const YAML::Mark& mark) const {
    return lines_ && mark.line >= 0 ? where_ + ", line " + std::to_string(mark.line + 1) : where_;
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (!tag.empty() && tag != "?" && tag != "!") fail(mark, "tags ('" + tag.substr(0, 80) + "') are not read here");
  }

  void open(SettingNode::Kind kind, const YAML::Mark& mark, const std::string& tag) {
    check_tag(mark, tag);
    if (open_.size() > max_setting_depth)
      fail(mark, "nested deeper than " + std::to_string(max_setting_depth) + " levels");
    SettingNode& node = place(kind, mark);
    open_.push_back({&node, "", false});
  }

  // Whether the scalar at hand is the key of a mapping.
  bool takes_key(const YAML::Mark& mark, const std::string& value) {
    Open& parent = open_.back();
    if (parent.node->kind != SettingNode::Kind::mapping || parent.has_key) return false;
    if (parent.node->find(value)) fail(mark, "key '" + value.substr(0, 80) + "' occurs twice");
    parent.key = value;
    parent.has_key = true;
    return true;
  }

  SettingNode& place(SettingNode::Kind kind, const YAML::Mark& mark) {
    Open& parent = open_.back();
    SettingNode* node = parent.node;
    if (parent.node->kind == SettingNode::Kind::mapping) {
      if (!parent.has_key) fail(mark, "a key must be plain text");
      parent.has_key = false;
      parent.node->fields.push_back({parent.key, {}});
      node = &parent.node->fields.back().node;
    } else if (parent.node->kind == SettingNode::Kind::sequence) {
      node = &parent.node->items.emplace_back();
    }
    node->kind = kind;
    node->place = at(mark);
    return *node;
  }

  const std::string& where_;
  bool lines_;
  std::vector<Open> open_;
};

SettingNode parse_yaml(std::string_view yaml, const std::string& where, bool lines) {
  if (yaml.size() > max_bytes) {
    throw Error(ErrorCode::corrupt, where + ": " + std::to_string(yaml.size()) + " bytes of settings; at most " +
                                        std::to_string(max_bytes) + " are read");
  }
  SettingNode root;
  root.place = where;
  Builder builder(root, where, lines);
  try {
    std::istringstream stream{std::string(yaml)};
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    SettingNode second;
    Builder rest(second, where, lines);
    if (parser.HandleNextDocument(rest)) throw Error(ErrorCode::corrupt, where + ": more than one YAML document");
  } catch (const YAML::Exception& error) {
    builder.fail(error.mark, "not valid YAML: " + error.msg);
  }
  return root;
}

// The child `key` of a node, made where a mapping has none yet.
SettingNode& child(SettingNode& node, const std::string& key, const std::string& place) {
  if (node.kind == SettingNode::Kind::nothing) node.kind = SettingNode::Kind::mapping;
  if (node.kind == SettingNode::Kind::mapping) {
    for (auto& [name, field] : node.fields) {
      if (name == key) return field;
    }
    node.fields.push_back({key, {}});
    SettingNode& made = node.fields.back().node;
    made.place = place;
    return made;
  }
  size_t index = 0;
  const auto result = std::from_chars(key.data(), key.data() + key.size(), index);
  const bool number = result.ec == std::errc() && result.ptr == key.data() + key.size();
  if (node.kind != SettingNode::Kind::sequence || !number || index >= node.items.size()) {
    throw Error(ErrorCode::invalid_argument, place + ": there is no '" + key + "' to set");
  }
  return node.items[index];
}

}  // namespace

SettingNode parse_settings(std::string_view yaml, const std::string& where) { return parse_yaml(yaml, where, true); }

SettingNode parse_settings(std::string_view yaml, const std::string& where, std::span<const std::string> overrides) {
  SettingNode root = parse_settings(yaml, where);
  for (const std::string& one : overrides) override_setting(root, one);
  return root;
}

void override_setting(SettingNode& root, std::string_view assignment) {
  const std::string place = "command line, '" + std::string(assignment.substr(0, 80)) + "'";
  const size_t sign = assignment.find('=');
  if (sign == std::string_view::npos || sign == 0) {
    throw Error(ErrorCode::invalid_argument, place + ": expected key=value");
  }
  const std::string_view path = assignment.substr(0, sign);
  SettingNode* node = &root;
  size_t begin = 0;
  for (size_t depth = 0; begin <= path.size(); ++depth) {
    if (depth == max_setting_depth) throw Error(ErrorCode::invalid_argument, place + ": a key of too many parts");
    const size_t end = std::min(path.find('.', begin), path.size());
    if (end == begin) throw Error(ErrorCode::invalid_argument, place + ": a key with an empty part");
    node = &child(*node, std::string(path.substr(begin, end - begin)), place);
    begin = end + 1;
  }
  const std::string_view value = assignment.substr(sign + 1);
  *node = parse_yaml(value, place, false);
  if (value.empty()) {  // nothing after '=' is the empty text; `null` clears
    node->kind = SettingNode::Kind::scalar;
    node->quoted = true;
  }
}

}  // namespace cepe::base
