#include "data/tokenizer_fingerprint.h"

#include <array>

#include "base/error.h"
#include "base/hash.h"

namespace cepe::data {
namespace {

constexpr std::array<std::string_view, 4> probes = {
    "The quick brown fox can't jump over 1234567890 lazy dogs;  it's 3.14 o'clock.\n\n\tNo\r\n",
    " Gr\xc3\xbc\xc3\x9f"
    "e aus M\xc3\xbcnchen, \xe4\xb8\x96\xe7\x95\x8c! \xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 "
    "\xf0\x9f\x99\x82",
    "for (int i = 0; i < n; ++i) { sum += x[i] * y_i; }  // HTTPServer2 camelCase snake_case",
    "internationalisation antidisestablishmentarianism www.example.org/a?b=c&d=%20 \\alpha_{i+1}^2",
};

// Ids between the tokens may be unused.
std::string spelling_of(const text::Tokenizer& tokenizer, text::Token id) {
  try {
    return tokenizer.token_of(id);
  } catch (const base::Error&) {
    return "";
  }
}

}  // namespace

std::string tokenizer_fingerprint(const text::Tokenizer& tokenizer) {
  base::Sha256 hash;
  const int64_t size = tokenizer.vocabulary_size();
  hash.update_values(std::span(&size, 1));
  for (int64_t id = 0; id < size; ++id) hash.update_text(spelling_of(tokenizer, static_cast<text::Token>(id)));
  for (const std::string_view probe : probes) {
    const std::vector<text::Token> ids = tokenizer.encode(probe);
    const uint64_t count = ids.size();
    hash.update_values(std::span(&count, 1));
    hash.update_values(std::span(ids.data(), ids.size()));
  }
  return base::to_hex(hash.finish());
}

}  // namespace cepe::data
