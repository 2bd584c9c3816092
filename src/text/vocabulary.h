// The two directions of a vocabulary: token text -> id and id -> token text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/tokenizer.h"

namespace cepe::text {

class Vocabulary {
 public:
  static constexpr Token absent = -1;

  Vocabulary() = default;
  // Token i is tokens[i]; a token that occurs twice keeps its first id (both ids still decode).
  explicit Vocabulary(std::vector<std::string> tokens);
  // {"token": id, ...}. Errors: corrupt (an id that is no integer, out of range or given twice), naming `where`.
  static Vocabulary from_json(const base::Json& object, const std::string& where);

  Token find(std::string_view token) const;  // absent where it is none
  bool contains(Token id) const;
  const std::string& token(Token id) const { return tokens_[static_cast<size_t>(id)]; }  // contains(id) only
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }                  // largest id + 1
  size_t longest() const { return longest_; }                                            // bytes
  // Errors: corrupt where the id holds another token.
  void add(const std::string& token, Token id, const std::string& where);

 private:
  void put(const std::string& token, Token id);
  void index(Token id);
  void grow();

  std::vector<std::string> tokens_;  // by id
  std::vector<bool> present_;        // ids may have gaps
  std::vector<Token> slots_;         // open addressing, a power of two, at most half full
  size_t count_ = 0;
  size_t longest_ = 0;
};

}  // namespace cepe::text
