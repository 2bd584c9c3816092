// Tokens back to text (the "decoder" of tokenizer.json), one token at a time: decoding a whole text is the same stream,
// so the two cannot differ.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "text/pattern.h"
#include "text/pre_tokenizer.h"

namespace cepe::text {

struct ByteLevelDecoding {};     // printable characters back to bytes
struct ByteFallbackDecoding {};  // runs of <0xXX> back to bytes
struct FuseDecoding {};          // all tokens become one
struct ReplaceDecoding {
  Pattern pattern;
  std::string content;
};
struct StripDecoding {  // up to `start` of the character from each token's start, up to `stop` from its end
  std::string character;
  size_t start = 0;
  size_t stop = 0;
};
struct MetaspaceDecoding {
  std::string replacement;
  bool strip_first = true;  // the mark that was prepended
};
struct WordPieceDecoding {
  std::string prefix = "##";
  bool cleanup = true;
};
struct JoinDecoding {};  // a space between tokens: what no decoder at all means

using DecoderRule = std::variant<ByteLevelDecoding, ByteFallbackDecoding, FuseDecoding, ReplaceDecoding, StripDecoding,
                                 MetaspaceDecoding, WordPieceDecoding, JoinDecoding>;

struct Decoder {
  std::vector<DecoderRule> rules;
};

// `json` may be null. Errors: corrupt, unsupported (names the type), naming `where`.
Decoder decoder_from_json(const base::Json& json, const std::string& where);

class DecodeStream {
 public:
  explicit DecodeStream(const Decoder& decoder);  // `decoder` must outlive it
  ~DecodeStream();
  void put(std::string_view token, std::string& out);  // appends the text that is now certain: whole characters
  void finish(std::string& out);                       // appends what was held back; the stream is done

  class Stage;

 private:
  std::vector<std::unique_ptr<Stage>> stages_;
};

}  // namespace cepe::text
