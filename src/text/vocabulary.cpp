#include "text/vocabulary.h"

#include <algorithm>
#include <functional>

#include "base/error.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;

size_t token_hash(std::string_view token) { return std::hash<std::string_view>{}(token); }

// Ids may have gaps, but a small file must not ask for a large table.
int64_t largest_id(size_t entries) { return static_cast<int64_t>(16 * entries) + 65536; }

}  // namespace

Vocabulary::Vocabulary(std::vector<std::string> tokens) : tokens_(std::move(tokens)), present_(tokens_.size(), true) {
  for (size_t id = 0; id < tokens_.size(); ++id) index(static_cast<Token>(id));
}

Vocabulary Vocabulary::from_json(const base::Json& object, const std::string& where) {
  if (!object.is_object()) throw Error(ErrorCode::corrupt, where + " must be an object of token: id");
  Vocabulary vocabulary;
  for (const auto& [token, id] : object.items()) {
    if (!id.is_number_integer()) {
      throw Error(ErrorCode::corrupt, where + ": the id of token '" + token.substr(0, 80) + "' must be an integer");
    }
    const auto value = id.is_number_unsigned() && id.get<uint64_t>() > INT32_MAX ? -1 : id.get<int64_t>();
    if (value < 0 || value > largest_id(object.size())) {
      throw Error(ErrorCode::corrupt, where + ": the id " + id.dump() + " of token '" + token.substr(0, 80) +
                                          "' is out of range for " + std::to_string(object.size()) + " tokens");
    }
    if (vocabulary.contains(static_cast<Token>(value))) {
      throw Error(ErrorCode::corrupt, where + ": id " + std::to_string(value) + " belongs to '" +
                                          vocabulary.token(static_cast<Token>(value)).substr(0, 80) + "' and to '" +
                                          token.substr(0, 80) + "'");
    }
    vocabulary.put(token, static_cast<Token>(value));
  }
  return vocabulary;
}

void Vocabulary::add(const std::string& token, Token id, const std::string& where) {
  if (id < 0 || id > largest_id(count_)) {
    throw Error(ErrorCode::corrupt, where + ": id " + std::to_string(id) + " of token '" + token.substr(0, 80) +
                                        "' is out of range for " + std::to_string(count_) + " tokens");
  }
  if (contains(id)) {
    if (this->token(id) == token) return;
    throw Error(ErrorCode::corrupt, where + ": id " + std::to_string(id) + " of token '" + token.substr(0, 80) +
                                        "' belongs to '" + this->token(id).substr(0, 80) + "'");
  }
  put(token, id);
}

void Vocabulary::put(const std::string& token, Token id) {
  const auto at = static_cast<size_t>(id);
  if (at >= tokens_.size()) {
    tokens_.resize(at + 1);
    present_.resize(at + 1);
  }
  tokens_[at] = token;
  present_[at] = true;
  index(id);
}

bool Vocabulary::contains(Token id) const {
  return id >= 0 && static_cast<size_t>(id) < tokens_.size() && present_[static_cast<size_t>(id)];
}

Token Vocabulary::find(std::string_view token) const {
  if (slots_.empty() || token.size() > longest_) return absent;
  const size_t mask = slots_.size() - 1;
  for (size_t at = token_hash(token) & mask; slots_[at] != absent; at = (at + 1) & mask) {
    if (tokens_[static_cast<size_t>(slots_[at])] == token) return slots_[at];
  }
  return absent;
}

void Vocabulary::index(Token id) {
  if (2 * (count_ + 1) > slots_.size()) grow();
  const std::string& token = tokens_[static_cast<size_t>(id)];
  longest_ = std::max(longest_, token.size());
  const size_t mask = slots_.size() - 1;
  size_t at = token_hash(token) & mask;
  for (; slots_[at] != absent; at = (at + 1) & mask) {
    if (tokens_[static_cast<size_t>(slots_[at])] == token) return;
  }
  slots_[at] = id;
  ++count_;
}

void Vocabulary::grow() {
  const std::vector<Token> old = std::move(slots_);
  slots_.assign(std::max<size_t>(64, old.size() * 2), absent);
  const size_t mask = slots_.size() - 1;
  for (const Token id : old) {
    if (id == absent) continue;
    size_t at = token_hash(tokens_[static_cast<size_t>(id)]) & mask;
    while (slots_[at] != absent) at = (at + 1) & mask;
    slots_[at] = id;
  }
}

}  // namespace cepe::text
