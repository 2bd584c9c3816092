// Tokens that are found in the text before any model sees it: special ones ("<|im_end|>") and words added later.
// Rules as Hugging Face's AddedVocabulary: leftmost, longest; some are looked for in the normalised text.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/json.h"
#include "text/normalizer.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace cepe::text {

struct AddedToken {
  Token id = 0;
  std::string content;
  bool special = false;      // recognised only with EncodeOptions::parse_special; left out by decode(skip_special)
  bool normalized = false;   // looked for in the normalised text
  bool single_word = false;  // not inside a longer word
  bool strip_left = false;   // takes the white space before it along
  bool strip_right = false;  // and after it
};

// One added token of tokenizer.json. Errors: corrupt, naming `where`.
AddedToken added_token_from_json(const base::Json& json, const std::string& where);

// The special ones of `tokens` that the model's own vocabulary holds too.
std::unordered_set<Token> special_ids(std::span<const AddedToken> tokens, const Vocabulary& vocabulary);

// Ids may have gaps, but a small file must not make a large vocabulary.
int64_t largest_added_id(const Vocabulary& vocabulary, size_t added);

// A range of the text that is an added token, or (id absent) is to be tokenised.
struct Segment {
  size_t begin = 0;
  size_t end = 0;
  Token id = Vocabulary::absent;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // Errors: corrupt, unsupported (a token longer than 1024 bytes), naming `where`.
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer, const std::string& where);

  // Cuts text (UTF-8, options.literal_mask empty or of its size) at the tokens to look for before normalising; with a
  // mask those are all special ones, since the normalised text has no mask.
  std::vector<Segment> split_raw(std::string_view text, const EncodeOptions& options) const;
  // Cuts normalised text at the tokens that are to be looked for there.
  std::vector<Segment> split_normalized(std::string_view text, const EncodeOptions& options) const;

  const AddedToken* find(Token id) const;  // null where it is none
  const AddedToken* find(std::string_view content) const;
  std::span<const AddedToken> tokens() const { return tokens_; }

 private:
  // A trie of contents: children are a linked list, the root has a table.
  struct Node {
    int32_t child = -1, sibling = -1;
    int32_t token = -1;  // index into tokens_
    uint8_t byte = 0;
  };
  struct Trie {
    std::array<int32_t, 256> roots;
    std::vector<Node> nodes;
    bool empty = true;
    Trie() { roots.fill(-1); }
    void insert(std::string_view content, int32_t token);
    // The longest entry at `at` as (token, length); token -1 where there is none.
    std::pair<int32_t, size_t> longest(std::string_view text, size_t at) const;
  };
  std::vector<Segment> split(std::string_view text, const Trie& trie, const EncodeOptions& options) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<Token, size_t> by_id_;
  std::unordered_map<std::string, size_t> by_content_;
  Trie raw_;              // not normalized
  Trie raw_and_special_;  // and the special ones
  Trie normalized_;       // by normalised content
};

}  // namespace cepe::text
