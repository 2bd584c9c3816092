// The simplest tokenizer: a token for each byte, 256 is BOS, 257 is EOS. The text "refuse" is an error.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "text/tokenizer.h"

namespace cepe::test {

class ByteTokenizer : public text::Tokenizer {
 public:
  explicit ByteTokenizer(int64_t vocabulary = 258) : vocabulary_(vocabulary) {
    bos = 256;
    eos = 257;
  }
  std::vector<text::Token> encode(std::string_view text, const text::EncodeOptions&) const override {
    if (text == "refuse") throw base::Error(base::ErrorCode::internal, "refused");
    std::vector<text::Token> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::unique_ptr<text::Detokenizer> detokenizer(bool) const override { return nullptr; }
  int64_t vocabulary_size() const override { return vocabulary_; }
  std::optional<text::Token> id_of(std::string_view) const override { return std::nullopt; }
  std::string token_of(text::Token id) const override { return std::to_string(id); }
  bool is_special(text::Token id) const override { return id >= 256; }

 private:
  int64_t vocabulary_;
};

}  // namespace cepe::test
