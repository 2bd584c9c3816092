// Reading the "decoder" of tokenizer.json.
#include "base/error.h"
#include "text/decoder.h"
#include "text/utf8.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

constexpr size_t most_decoder_rules = 64;
constexpr int64_t most_stripped = 1024;

std::string one_character(const Json& json, const char* field, const std::string& where) {
  std::string text = base::json_string(json, field, where);
  if (text.empty() || character_at(text, 0).size != text.size()) {
    throw Error(ErrorCode::corrupt,
                where + ": field '" + field + "' must be one character, found '" + text.substr(0, 80) + "'");
  }
  return text;
}

size_t strip_count(const Json& json, const char* field, const std::string& where) {
  const int64_t count = base::json_integer(json, field, where, 0);
  if (count < 0 || count > most_stripped) {
    throw Error(ErrorCode::corrupt, where + ": field '" + field + "' is " + std::to_string(count) + "; expected 0 to " +
                                        std::to_string(most_stripped));
  }
  return static_cast<size_t>(count);
}

void append_decoder_rules(const Json& json, const std::string& where, std::vector<DecoderRule>& rules) {
  const std::string type = base::json_string(json, "type", where);
  if (type == "Sequence") {
    if (!base::json_has(json, "decoders") || !json["decoders"].is_array())
      throw Error(ErrorCode::corrupt, where + ": field 'decoders' must be an array");
    for (const Json& part : json["decoders"]) append_decoder_rules(part, where, rules);
    return;
  }
  if (rules.size() == most_decoder_rules)
    throw Error(ErrorCode::unsupported, where + ": more than " + std::to_string(most_decoder_rules) + " decoders");
  if (type == "ByteLevel") {
    rules.emplace_back(ByteLevelDecoding{});
  } else if (type == "ByteFallback") {
    rules.emplace_back(ByteFallbackDecoding{});
  } else if (type == "Fuse") {
    rules.emplace_back(FuseDecoding{});
  } else if (type == "Replace") {
    if (!base::json_has(json, "pattern")) throw Error(ErrorCode::corrupt, where + ": field 'pattern' is missing");
    rules.emplace_back(
        ReplaceDecoding{Pattern::from_json(json["pattern"], where), base::json_string(json, "content", where)});
  } else if (type == "Strip") {
    rules.emplace_back(StripDecoding{one_character(json, "content", where), strip_count(json, "start", where),
                                     strip_count(json, "stop", where)});
  } else if (type == "Metaspace") {
    rules.emplace_back(MetaspaceDecoding{one_character(json, "replacement", where),
                                         prepend_scheme_from_json(json, where) != PrependScheme::never});
  } else if (type == "WordPiece") {
    rules.emplace_back(WordPieceDecoding{base::json_string(json, "prefix", where, "##"),
                                         base::json_boolean(json, "cleanup", where, true)});
  } else {
    throw Error(ErrorCode::unsupported, where + ": decoder '" + type.substr(0, 80) + "' is not supported");
  }
}

}  // namespace

Decoder decoder_from_json(const Json& json, const std::string& where) {
  Decoder decoder;
  if (json.is_null()) {
    decoder.rules.emplace_back(JoinDecoding{});
  } else {
    append_decoder_rules(json, where, decoder.rules);
  }
  return decoder;
}

}  // namespace cepe::text
