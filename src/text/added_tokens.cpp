#include "text/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;

constexpr size_t longest_content = 1024;

size_t character_before(std::string_view text, size_t at) {
  do --at;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  const bool free_left = begin == 0 || !is_word(character_at(text, character_before(text, begin)).code);
  return free_left && (end == text.size() || !is_word(character_at(text, end).code));
}

size_t without_space_before(std::string_view text, size_t at, size_t least) {
  while (at > least) {
    const size_t before = character_before(text, at);
    if (before < least || !is_whitespace(character_at(text, before).code)) break;
    at = before;
  }
  return at;
}

size_t after_space(std::string_view text, size_t at) {
  while (at < text.size()) {
    const Character character = character_at(text, at);
    if (!is_whitespace(character.code)) break;
    at += character.size;
  }
  return at;
}

bool is_masked(const EncodeOptions& options, size_t begin, size_t end) {
  if (options.literal_mask.empty()) return false;
  const auto part = options.literal_mask.substr(begin, end - begin);
  return std::any_of(part.begin(), part.end(), [](char masked) { return masked != 0; });
}

}  // namespace

AddedToken added_token_from_json(const base::Json& json, const std::string& where) {
  if (!json.is_object()) throw Error(ErrorCode::corrupt, where + ": an added token must be an object");
  AddedToken token;
  const int64_t id = base::json_integer(json, "id", where, 0);
  token.content = base::json_string(json, "content", where);
  if (id < 0 || id > INT32_MAX) {
    throw Error(ErrorCode::corrupt, where + ": the id " + std::to_string(id) + " of added token '" +
                                        token.content.substr(0, 80) + "' is out of range");
  }
  token.id = static_cast<Token>(id);
  token.special = base::json_boolean(json, "special", where, false);
  token.normalized = base::json_boolean(json, "normalized", where, !token.special);
  token.single_word = base::json_boolean(json, "single_word", where, false);
  token.strip_left = base::json_boolean(json, "lstrip", where, false);
  token.strip_right = base::json_boolean(json, "rstrip", where, false);
  return token;
}

std::unordered_set<Token> special_ids(std::span<const AddedToken> tokens, const Vocabulary& vocabulary) {
  std::unordered_set<Token> ids;
  for (const AddedToken& token : tokens) {
    const Token id = vocabulary.find(token.content);
    if (token.special && id != Vocabulary::absent) ids.insert(id);
  }
  return ids;
}

int64_t largest_added_id(const Vocabulary& vocabulary, size_t added) {
  return vocabulary.size() + static_cast<int64_t>(16 * added) + 65536;
}

void AddedTokens::Trie::insert(std::string_view content, int32_t token) {
  if (content.empty()) return;
  empty = false;
  int32_t node = -1;
  for (const char character : content) {
    const auto byte = static_cast<uint8_t>(character);
    int32_t next = node < 0 ? roots[byte] : nodes[static_cast<size_t>(node)].child;
    while (next >= 0 && nodes[static_cast<size_t>(next)].byte != byte) next = nodes[static_cast<size_t>(next)].sibling;
    if (next < 0) {
      next = static_cast<int32_t>(nodes.size());
      nodes.push_back({-1, node < 0 ? -1 : nodes[static_cast<size_t>(node)].child, -1, byte});
      (node < 0 ? roots[byte] : nodes[static_cast<size_t>(node)].child) = next;
    }
    node = next;
  }
  if (nodes[static_cast<size_t>(node)].token < 0) nodes[static_cast<size_t>(node)].token = token;
}

std::pair<int32_t, size_t> AddedTokens::Trie::longest(std::string_view text, size_t at) const {
  std::pair<int32_t, size_t> best{-1, 0};
  int32_t node = roots[static_cast<uint8_t>(text[at])];
  for (size_t length = 1; node >= 0; ++length) {
    const Node& here = nodes[static_cast<size_t>(node)];
    if (here.token >= 0) best = {here.token, length};
    if (at + length == text.size()) break;
    const auto byte = static_cast<uint8_t>(text[at + length]);
    node = here.child;
    while (node >= 0 && nodes[static_cast<size_t>(node)].byte != byte) node = nodes[static_cast<size_t>(node)].sibling;
  }
  return best;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer, const std::string& where)
    : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (token.content.size() > longest_content) {
      throw Error(ErrorCode::unsupported, where + ": added token '" + token.content.substr(0, 80) +
                                              "...' is longer than " + std::to_string(longest_content) + " bytes");
    }
    by_id_.try_emplace(token.id, i);
    by_content_.try_emplace(token.content, i);
    const auto index = static_cast<int32_t>(i);
    if (token.normalized) normalized_.insert(normalizer.apply(token.content), index);
    if (!token.normalized) raw_.insert(token.content, index);
    if (!token.normalized || token.special) raw_and_special_.insert(token.content, index);
  }
}

std::vector<Segment> AddedTokens::split_raw(std::string_view text, const EncodeOptions& options) const {
  const bool masked = options.parse_special && !options.literal_mask.empty();
  return split(text, masked ? raw_and_special_ : raw_, options);
}

std::vector<Segment> AddedTokens::split_normalized(std::string_view text, const EncodeOptions& options) const {
  EncodeOptions unmasked = options;
  unmasked.parse_special = options.parse_special && options.literal_mask.empty();
  unmasked.literal_mask = {};
  return split(text, normalized_, unmasked);
}

std::vector<Segment> AddedTokens::split(std::string_view text, const Trie& trie, const EncodeOptions& options) const {
  std::vector<Segment> segments;
  size_t done = 0;
  for (size_t at = 0; at < text.size() && !trie.empty;) {
    const auto [index, length] = trie.longest(text, at);
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    size_t begin = at, end = at + length;
    if (token.special && options.parse_special && is_masked(options, begin, end)) {
      ++at;  // a user's bytes must not hide the token that may start within them
      continue;
    }
    at = end;
    if (token.special && !options.parse_special) continue;
    if (token.single_word && !stands_alone(text, begin, end)) continue;
    if (token.strip_left) begin = without_space_before(text, begin, done);
    if (token.strip_right) end = at = after_space(text, end);
    if (done < begin) segments.push_back({done, begin});
    segments.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) segments.push_back({done, text.size()});
  return segments;
}

const AddedToken* AddedTokens::find(Token id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

}  // namespace cepe::text
