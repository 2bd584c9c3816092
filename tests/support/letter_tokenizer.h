// A tokenizer whose every token is one printable character, for tests that read what was generated.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace cepe::test {

class LetterTokenizer : public text::Tokenizer {
 public:
  explicit LetterTokenizer(int64_t vocabulary = 96) : vocabulary_(vocabulary) {}
  std::vector<text::Token> encode(std::string_view text, const text::EncodeOptions& /*options*/) const override {
    std::vector<text::Token> ids;
    for (const char c : text) ids.push_back(static_cast<text::Token>(c - first));
    return ids;
  }
  std::unique_ptr<text::Detokenizer> detokenizer(bool /*skip_special*/) const override {
    struct Letters : text::Detokenizer {
      void put(text::Token id, std::string& out) override { out += static_cast<char>(first + id); }
      void finish(std::string& /*out*/) override {}
    };
    return std::make_unique<Letters>();
  }
  int64_t vocabulary_size() const override { return vocabulary_; }
  std::optional<text::Token> id_of(std::string_view /*token*/) const override { return std::nullopt; }
  std::string token_of(text::Token id) const override { return {static_cast<char>(first + id)}; }
  bool is_special(text::Token /*id*/) const override { return false; }

 private:
  static constexpr char first = ' ';  // of token 0: 95 are printable, the next is DEL
  int64_t vocabulary_;
};

}  // namespace cepe::test
