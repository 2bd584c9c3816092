#include "text/normalizer.h"

#include "base/error.h"
#include "text/byte_level.h"
#include "text/pieces.h"
#include "text/utf8.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;

constexpr size_t most_normalizer_rules = 64;

template <class Each>
void for_each_character(std::string_view text, Each&& each) {
  for (size_t at = 0; at < text.size();) {
    const Character character = character_at(text, at);
    each(character.code);
    at += character.size;
  }
}

template <class Keep>
std::string only_characters(std::string_view text, Keep&& keep) {
  std::string out;
  out.reserve(text.size());
  for_each_character(text, [&](char32_t code) {
    if (keep(code)) append_character(out, code);
  });
  return out;
}

std::string lowered(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_character(text, [&](char32_t code) { append_lower(out, code); });
  return out;
}

bool is_bert_control(char32_t code) { return code != '\t' && code != '\n' && code != '\r' && is_other(code); }

std::string cleaned(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_character(text, [&](char32_t code) {
    if (code == 0 || code == 0xFFFD || is_bert_control(code)) return;
    append_character(out, is_whitespace(code) ? U' ' : code);
  });
  return out;
}

std::string with_separate_chinese(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_character(text, [&](char32_t code) {
    const bool chinese = is_chinese(code);
    if (chinese) out += ' ';
    append_character(out, code);
    if (chinese) out += ' ';
  });
  return out;
}

std::string stripped(std::string_view text, const StripRule& rule) {
  while (rule.left && !text.empty()) {
    const Character first = character_at(text, 0);
    if (!is_whitespace(first.code)) break;
    text.remove_prefix(first.size);
  }
  while (rule.right && !text.empty()) {
    size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    if (!is_whitespace(character_at(text, at).code)) break;
    text.remove_suffix(text.size() - at);
  }
  return std::string(text);
}

struct ApplyRule {
  const std::string& text;
  size_t limit;

  std::string operator()(UnicodeForm form) const { return to_form(text, form); }
  std::string operator()(const LowercaseRule&) const { return lowered(text); }
  std::string operator()(const StripAccentsRule&) const {
    return only_characters(text, [](char32_t code) { return !is_mark(code); });
  }
  std::string operator()(const ByteLevelRule&) const {
    std::string out;
    append_byte_characters(out, text);
    return out;
  }
  std::string operator()(const StripRule& rule) const { return stripped(text, rule); }
  std::string operator()(const ReplaceRule& rule) const { return replace_all(text, rule.pattern, rule.content, limit); }
  std::string operator()(const PrependRule& rule) const { return text.empty() ? text : rule.content + text; }
  std::string operator()(const BertRule& rule) const {
    std::string out = rule.clean_text ? cleaned(text) : text;
    if (rule.separate_chinese) out = with_separate_chinese(out);
    if (rule.strip_accents) {
      out = only_characters(to_form(out, UnicodeForm::nfd), [](char32_t code) { return !is_nonspacing_mark(code); });
    }
    return rule.lowercase ? lowered(out) : out;
  }
};

BertRule bert_rule(const base::Json& json, const std::string& where) {
  BertRule rule;
  rule.clean_text = base::json_boolean(json, "clean_text", where, true);
  rule.separate_chinese = base::json_boolean(json, "handle_chinese_chars", where, true);
  rule.lowercase = base::json_boolean(json, "lowercase", where, true);
  rule.strip_accents = base::json_boolean(json, "strip_accents", where, rule.lowercase);
  return rule;
}

void append_normalizer_rules(const base::Json& json, const std::string& where, std::vector<NormalizerRule>& rules) {
  if (json.is_null()) return;
  const std::string type = base::json_string(json, "type", where);
  if (type == "Sequence") {
    if (!base::json_has(json, "normalizers") || !json["normalizers"].is_array())
      throw Error(ErrorCode::corrupt, where + ": field 'normalizers' must be an array");
    for (const auto& part : json["normalizers"]) append_normalizer_rules(part, where, rules);
    return;
  }
  if (rules.size() == most_normalizer_rules)
    throw Error(ErrorCode::unsupported,
                where + ": more than " + std::to_string(most_normalizer_rules) + " normalisers");
  if (type == "NFC") return rules.emplace_back(UnicodeForm::nfc), void();
  if (type == "NFD") return rules.emplace_back(UnicodeForm::nfd), void();
  if (type == "NFKC") return rules.emplace_back(UnicodeForm::nfkc), void();
  if (type == "NFKD") return rules.emplace_back(UnicodeForm::nfkd), void();
  if (type == "Lowercase") return rules.emplace_back(LowercaseRule{}), void();
  if (type == "StripAccents") return rules.emplace_back(StripAccentsRule{}), void();
  if (type == "ByteLevel") return rules.emplace_back(ByteLevelRule{}), void();
  if (type == "BertNormalizer") return rules.emplace_back(bert_rule(json, where)), void();
  if (type == "Prepend") return rules.emplace_back(PrependRule{base::json_string(json, "prepend", where)}), void();
  if (type == "Strip") {
    rules.emplace_back(StripRule{base::json_boolean(json, "strip_left", where, true),
                                 base::json_boolean(json, "strip_right", where, true)});
    return;
  }
  if (type == "Replace") {
    if (!base::json_has(json, "pattern")) throw Error(ErrorCode::corrupt, where + ": field 'pattern' is missing");
    rules.emplace_back(
        ReplaceRule{Pattern::from_json(json["pattern"], where), base::json_string(json, "content", where)});
    return;
  }
  throw Error(ErrorCode::unsupported, where + ": normaliser '" + type.substr(0, 80) + "' is not supported");
}

}  // namespace

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  const size_t limit = growth_limit(text.size());
  for (const auto& rule : rules) {
    out = std::visit(ApplyRule{out, limit}, rule);
    if (out.size() > limit) {
      throw Error(ErrorCode::unsupported,
                  "normalising makes a text of " + std::to_string(text.size()) + " bytes unreasonably long");
    }
  }
  return out;
}

Normalizer normalizer_from_json(const base::Json& json, const std::string& where) {
  Normalizer normalizer;
  append_normalizer_rules(json, where, normalizer.rules);
  return normalizer;
}

}  // namespace cepe::text
