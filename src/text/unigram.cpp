#include "text/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "text/byte_tokens.h"
#include "text/utf8.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;

constexpr double unknown_penalty = 10;  // below the least likely token
constexpr size_t longest_token = 1024;  // bytes

}  // namespace

Unigram::Unigram(Vocabulary vocabulary, std::vector<double> scores, Token unknown, bool byte_fallback,
                 const std::unordered_set<Token>& special)
    : vocabulary_(std::move(vocabulary)),
      scores_(std::move(scores)),
      unknown_(unknown),
      byte_fallback_(byte_fallback),
      byte_tokens_(byte_tokens_of(vocabulary_)) {
  roots_.fill(-1);
  double least = std::numeric_limits<double>::infinity();
  for (const double score : scores_) least = std::min(least, score);
  unknown_score_ = least - unknown_penalty;
  for (Token id = 0; id < vocabulary_.size(); ++id) {
    if (special.contains(id)) continue;
    int32_t node = -1;
    for (const char character : vocabulary_.token(id)) {
      const auto byte = static_cast<uint8_t>(character);
      int32_t next = child_of(node, byte);
      if (next < 0) {
        next = static_cast<int32_t>(trie_.size());
        trie_.push_back({-1, node < 0 ? -1 : trie_[static_cast<size_t>(node)].child, Vocabulary::absent, byte});
        (node < 0 ? roots_[byte] : trie_[static_cast<size_t>(node)].child) = next;
      }
      node = next;
    }
    if (node >= 0) trie_[static_cast<size_t>(node)].token = vocabulary_.find(vocabulary_.token(id));
  }
}

int32_t Unigram::child_of(int32_t node, uint8_t byte) const {
  if (node < 0) return roots_[byte];
  int32_t child = trie_[static_cast<size_t>(node)].child;
  while (child >= 0 && trie_[static_cast<size_t>(child)].byte != byte)
    child = trie_[static_cast<size_t>(child)].sibling;
  return child;
}

// Forward: nodes[i] is the best way to have read the first i bytes.
void Unigram::fill(std::string_view text, std::vector<Node>& nodes) const {
  nodes.assign(text.size() + 1, {});
  nodes[0].reached = true;
  const auto offer = [&](size_t start, size_t end, double score, Token id) {
    Node& node = nodes[end];
    const double total = nodes[start].score + score;
    if (!node.reached || total > node.score) node = {start, total, id, true};
  };
  for (size_t at = 0; at < text.size(); at += character_at(text, at).size) {
    const size_t size = character_at(text, at).size;
    bool has_single = false;
    int32_t node = -1;
    for (size_t end = at; end < text.size();) {
      node = child_of(node, static_cast<uint8_t>(text[end]));
      if (node < 0) break;
      ++end;
      const Token id = trie_[static_cast<size_t>(node)].token;
      if (id == Vocabulary::absent) continue;
      offer(at, end, scores_[static_cast<size_t>(id)], id);
      if (end - at == size) has_single = true;
    }
    if (!has_single) offer(at, at + size, unknown_score_, Vocabulary::absent);
  }
}

void Unigram::append_unknown(std::string_view text, std::vector<Token>& out) const {
  if (byte_fallback_) {
    const bool all = std::all_of(text.begin(), text.end(), [&](char byte) {
      return byte_tokens_[static_cast<uint8_t>(byte)] != Vocabulary::absent;
    });
    if (all) {
      for (const char byte : text) out.push_back(byte_tokens_[static_cast<uint8_t>(byte)]);
      return;
    }
  }
  if (unknown_ == Vocabulary::absent) {
    throw Error(ErrorCode::invalid_argument,
                "the vocabulary has neither '" + std::string(text.substr(0, 80)) + "' nor a token for what is unknown");
  }
  out.push_back(unknown_);
}

void Unigram::tokenize(const Pieces& pieces, std::vector<Token>& out) const {
  std::vector<Node> nodes;
  std::vector<Range> path;
  for (const Piece& piece : pieces.list) {
    const std::string_view text = pieces.view(piece);
    fill(text, nodes);
    path.clear();
    for (size_t end = text.size(); end > 0; end = nodes[end].start) {
      const bool unknown = nodes[end].id == Vocabulary::absent;
      // A run of unknown characters is one.
      if (unknown && !path.empty() && path.back().begin == end && nodes[path.back().end].id == Vocabulary::absent) {
        path.back().begin = nodes[end].start;
      } else {
        path.push_back({nodes[end].start, end});
      }
    }
    for (auto part = path.rbegin(); part != path.rend(); ++part) {
      const Token id = nodes[part->end].id;
      if (id != Vocabulary::absent && id != unknown_) {
        out.push_back(id);
      } else {
        append_unknown(text.substr(part->begin, part->end - part->begin), out);
      }
    }
  }
}

std::unique_ptr<Model> unigram_from_json(const base::Json& json, std::span<const AddedToken> added,
                                         const std::string& where) {
  if (!base::json_has(json, "vocab") || !json["vocab"].is_array() || json["vocab"].empty())
    throw Error(ErrorCode::corrupt, where + ".vocab must be an array of [token, score]");
  std::vector<std::string> tokens;
  std::vector<double> scores;
  for (const auto& entry : json["vocab"]) {
    const std::string here = where + ".vocab[" + std::to_string(tokens.size()) + "]";
    const bool sound = entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_number();
    if (!sound || !std::isfinite(entry[1].get<double>()))
      throw Error(ErrorCode::corrupt, here + " must be [token, finite score]");
    tokens.push_back(entry[0].get<std::string>());
    scores.push_back(entry[1].get<double>());
    if (tokens.back().size() > longest_token) {
      throw Error(ErrorCode::unsupported,
                  here + ": a token longer than " + std::to_string(longest_token) + " bytes is not supported");
    }
  }
  const int64_t unknown = base::json_integer(json, "unk_id", where, Vocabulary::absent);
  if (unknown < Vocabulary::absent || unknown >= static_cast<int64_t>(tokens.size())) {
    throw Error(ErrorCode::corrupt, where + ": field 'unk_id' is " + std::to_string(unknown) + ", outside the " +
                                        std::to_string(tokens.size()) + " tokens");
  }
  Vocabulary vocabulary(std::move(tokens));
  const std::unordered_set<Token> special = special_ids(added, vocabulary);
  return std::make_unique<Unigram>(std::move(vocabulary), std::move(scores), static_cast<Token>(unknown),
                                   base::json_boolean(json, "byte_fallback", where, false), special);
}

}  // namespace cepe::text
