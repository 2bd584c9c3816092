#include "text/bpe_merges.h"

#include <algorithm>

#include "base/error.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

constexpr size_t longest_scored_token = 512;  // bytes

std::string shown(std::string_view text) { return std::string(text.substr(0, 80)); }

struct Rule {
  std::string_view left, right;
};

Rule rule_of(const Json& json, const std::string& where) {
  if (json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string()) {
    return {json[0].get_ref<const std::string&>(), json[1].get_ref<const std::string&>()};
  }
  if (json.is_string()) {
    const std::string_view text = json.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  throw Error(ErrorCode::corrupt, where + " must be \"left right\" or [\"left\", \"right\"], found " +
                                      shown(json.dump(-1, ' ', true, Json::error_handler_t::replace)));
}

Token token_of(std::string_view token, const Vocabulary& vocabulary, const std::string& where) {
  const Token id = vocabulary.find(token);
  if (id == Vocabulary::absent)
    throw Error(ErrorCode::corrupt, where + " names '" + shown(token) + "', which is no token of the vocabulary");
  return id;
}

}  // namespace

MergeTable merges_from_json(const Json& json, const Vocabulary& vocabulary, std::string_view continuing_prefix,
                            const std::string& where) {
  if (!json.is_array()) throw Error(ErrorCode::corrupt, where + " must be an array");
  MergeTable table(json.size());
  std::string joined;
  uint32_t rank = 0;
  for (size_t i = 0; i < json.size(); ++i) {
    if (i == 0 && json[i].is_string() && json[i].get_ref<const std::string&>().starts_with("#version")) continue;
    const std::string rule_where = where + "[" + std::to_string(i) + "]";
    const Rule rule = rule_of(json[i], rule_where);
    const Token left = token_of(rule.left, vocabulary, rule_where);
    const Token right = token_of(rule.right, vocabulary, rule_where);
    joined = rule.left;
    const bool continues = !continuing_prefix.empty() && rule.right.starts_with(continuing_prefix);
    joined += continues ? rule.right.substr(continuing_prefix.size()) : rule.right;
    table.set(left, right, {rank++, token_of(joined, vocabulary, rule_where)});
  }
  return table;
}

MergeTable merges_from_scores(const Vocabulary& vocabulary, std::span<const float> scores,
                              const std::vector<bool>& mergeable, const std::string& where) {
  std::vector<Token> order;
  for (Token id = 0; id < vocabulary.size(); ++id) {
    if (mergeable[static_cast<size_t>(id)] && vocabulary.find(vocabulary.token(id)) == id) order.push_back(id);
  }
  const auto score = [&](Token id) { return scores[static_cast<size_t>(id)]; };
  std::stable_sort(order.begin(), order.end(), [&](Token a, Token b) { return score(a) > score(b); });
  MergeTable table(2 * order.size());
  uint32_t rank = 0;  // equal scores have equal rank: the leftmost merges first
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && score(order[i]) != score(order[i - 1])) ++rank;
    const std::string_view token = vocabulary.token(order[i]);
    if (token.size() > longest_scored_token) {
      throw Error(ErrorCode::unsupported, where + ": token '" + shown(token) + "...' is longer than " +
                                              std::to_string(longest_scored_token) + " bytes");
    }
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const Token left = vocabulary.find(token.substr(0, cut));
      if (left == Vocabulary::absent || !mergeable[static_cast<size_t>(left)]) continue;
      const Token right = vocabulary.find(token.substr(cut));
      if (right == Vocabulary::absent || !mergeable[static_cast<size_t>(right)]) continue;
      table.set(left, right, {rank, order[i]});
    }
  }
  return table;
}

}  // namespace cepe::text
