#include "text/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace cepe::text {
namespace {

using base::Json;
using testing::HasSubstr;

using Ids = std::vector<Token>;

Json sound() {
  return Json::parse(R"({
    "added_tokens": [{"id": 6, "content": "<end>", "special": true}, {"id": 7, "content": "<tool>", "special": false}],
    "model": {"type": "BPE", "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2, "ab": 3, "<": 4, "end>": 5},
              "merges": ["a b"]},
    "decoder": {"type": "Fuse"}})");
}

std::unique_ptr<PipelineTokenizer> load(const Json& json) { return tokenizer_from_json(json.dump(), "t.json"); }

// The message of the error that `json` causes.
std::string refusal(const Json& json) {
  try {
    load(json);
  } catch (const base::Error& error) {
    EXPECT_TRUE(error.is_users()) << error.what();
    return error.what();
  }
  return "accepted";
}

TEST(TokenizerJson, HostileFilesAreRefusedWithTheirField) {
  const std::vector<std::tuple<const char*, const char*, const char*>> cases{
      {"/model/vocab/a", "-1", "vocab"},
      {"/model/vocab/a", "4000000000", "vocab"},
      {"/model/vocab/a", "99999999", "out of range"},
      {"/model/vocab/a", "2", "belongs to"},
      {"/model/vocab/a", "\"x\"", "vocab"},
      {"/model/vocab", "[]", "vocab"},
      {"/model/merges", "{}", "merges"},
      {"/model/merges", "[\"a zz\"]", "merges[0]"},
      {"/model/merges", "[\"a\"]", "merges[0]"},
      {"/model/merges", "[[\"b\", \"a\"]]", "'ba'"},
      {"/model/merges", "[[\"a\", 3]]", "merges[0]"},
      {"/model/unk_token", "\"gone\"", "unk_token"},
      {"/model/dropout", "0.5", "dropout"},
      {"/model/type", "\"Telepathy\"", "Telepathy"},
      {"/model", "null", "model"},
      {"/added_tokens", "7", "added_tokens"},
      {"/added_tokens/0/id", "3", "belongs to"},
      {"/added_tokens/0/id", "7", "belongs to"},
      {"/added_tokens/0/id", "2000000000", "out of range"},
      {"/normalizer", "{\"type\": \"Precompiled\"}", "Precompiled"},
      {"/normalizer", "{\"type\": 3}", "normalizer"},
      {"/normalizer", "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"(\"}, \"content\": \"\"}", "normalizer"},
      {"/pre_tokenizer", "{\"type\": \"Split\", \"pattern\": 1}", "pre_tokenizer"},
      {"/pre_tokenizer", "{\"type\": \"UnicodeScripts\"}", "UnicodeScripts"},
      {"/post_processor", "{\"type\": \"BertProcessing\", \"cls\": [\"c\", 99], \"sep\": [\"s\", 1]}", "99"},
      {"/post_processor", "{\"type\": \"TemplateProcessing\", \"single\": []}", "post_processor"},
      {"/decoder", "{\"type\": \"CTC\"}", "CTC"},
      {"/decoder", "{\"type\": \"Strip\", \"content\": \" \", \"start\": -1}", "start"},
  };
  for (const auto& [pointer, value, expected] : cases) {
    Json json = sound();
    json[Json::json_pointer(pointer)] = Json::parse(value);
    EXPECT_THAT(refusal(json), testing::AllOf(HasSubstr("t.json"), HasSubstr(expected))) << pointer << " " << value;
  }
}

TEST(TokenizerJson, RulesThatGrowWithoutBoundAreStopped) {
  Json json = sound();
  Json rules = Json::array();
  for (int i = 0; i < 60; ++i)
    rules.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaa"}});
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", rules}};
  EXPECT_THROW(load(json)->encode("aaaa"), base::Error);
  json = sound();
  json["decoder"] = {{"type", "Sequence"}, {"decoders", rules}};
  EXPECT_THROW(load(json)->decode(Ids{1}), base::Error);
}

TEST(TokenizerJson, SpecialTokensAreRecognisedOnlyWhenAsked) {
  const auto tokenizer = load(sound());
  EXPECT_EQ(tokenizer->encode("ab<end>", {.parse_special = true}), (Ids{3, 6}));
  EXPECT_NE(tokenizer->encode("ab<end>"), (Ids{3, 6}));
  EXPECT_EQ(tokenizer->encode("ab<tool>"), (Ids{3, 7}));  // no special token: always
  EXPECT_EQ(tokenizer->decode(Ids{3, 6, 7}), "ab<tool>");
  EXPECT_EQ(tokenizer->decode(Ids{3, 6, 7}, false), "ab<end><tool>");
  EXPECT_THROW(tokenizer->decode(Ids{8}), base::Error);
  EXPECT_THROW(tokenizer->decode(Ids{-1}), base::Error);
}

TEST(TokenizerJson, NoSpecialTokenComesFromMaskedBytes) {
  Json json = sound();
  for (const bool normalized : {false, true}) {
    json["added_tokens"][0]["normalized"] = normalized;
    const auto tokenizer = load(json);
    const std::string text = "<end>a<end>";
    std::string mask(text.size(), 0);
    const auto count = [&] {
      const auto ids = tokenizer->encode(text, {.parse_special = true, .literal_mask = mask});
      return std::count(ids.begin(), ids.end(), 6);
    };
    EXPECT_EQ(count(), 2);
    for (size_t at = 0; at < 5; ++at) {  // one byte of the user's within it is enough
      mask.assign(text.size(), 0);
      mask[at] = 1;
      EXPECT_EQ(count(), 1) << at;
    }
    mask.assign(text.size(), 1);
    EXPECT_EQ(count(), 0);
  }
  EXPECT_THROW(load(json)->encode("abc", {.literal_mask = "x"}), base::Error);
}

// Vocabularies that hold the special tokens as well, in which models look up pieces of the text.
TEST(TokenizerJson, NoModelSpellsASpecialToken) {
  Json unigram = Json::parse(R"({"added_tokens": [{"id": 1, "content": "</s>", "special": true}],
    "model": {"type": "Unigram", "unk_id": 0, "vocab": [["?", 0], ["</s>", 0], ["</", -5], ["s>", -5], ["a", -2]]}})");
  Json wordpiece = Json::parse(R"({"added_tokens": [{"id": 1, "content": "</s>", "special": true}],
    "model": {"type": "WordPiece", "unk_token": "?", "vocab": {"?": 0, "</s>": 1, "</": 2, "##s>": 3, "a": 4}}})");
  Json bpe = Json::parse(R"({"added_tokens": [{"id": 1, "content": "</s>", "special": true}],
    "pre_tokenizer": {"type": "Split", "pattern": {"String": "</s>"}, "behavior": "Isolated"},
    "model": {"type": "BPE", "ignore_merges": true, "merges": ["< /", "s >"],
              "vocab": {"</s>": 1, "</": 2, "s>": 3, "a": 4, "<": 5, "/": 6, "s": 7, ">": 8}}})");
  for (const Json& json : {unigram, wordpiece, bpe}) {
    const auto tokenizer = load(json);
    EXPECT_EQ(tokenizer->encode("</s>"), (Ids{2, 3}));
    EXPECT_EQ(tokenizer->encode("a</s>", {.parse_special = true}), (Ids{4, 1}));
    EXPECT_EQ(tokenizer->encode("</s>", {.parse_special = true, .literal_mask = "user"}), (Ids{2, 3}));
  }
}

// Among them U+200D, which joins letters in the scripts of India, and a circled letter.
TEST(TokenizerJson, WordsAreCutWhereThePublishedTokenizerCutsThem) {
  Json json = Json::parse(R"({"pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordPiece", "unk_token": "?",
    "vocab": {"?": 0, "a\u200db": 1, "\u24d0a": 2, "!\u00b2": 3}},
    "added_tokens": [{"id": 4, "content": "x", "single_word": true, "special": false}]})");
  const auto tokenizer = load(json);
  EXPECT_EQ(tokenizer->encode("a\u200Db \u24D0a !\u00B2"), (Ids{1, 2, 3}));
  EXPECT_EQ(tokenizer->encode("x! x\u200D"), (Ids{4, 0, 0}));
}

TEST(TokenizerJson, AUsersBytesDoNotHideTheTokenThatFollows) {
  Json json = sound();
  json["added_tokens"].push_back({{"id", 8}, {"content", "a<end>b"}, {"special", true}});
  const auto tokenizer = load(json);
  const std::string mask("\1\0\0\0\0\0\1", 7);
  EXPECT_EQ(tokenizer->encode("a<end>b", {.parse_special = true, .literal_mask = mask}), (Ids{1, 6, 2}));
}

TEST(TokenizerConfig, NamesTokensAndTheTemplate) {
  const auto tokenizer = load(sound());
  apply_config(*tokenizer, tokenizer_config_from_json(Json::parse(R"({
    "bos_token": {"content": "a"}, "eos_token": "<end>", "pad_token": null, "add_bos_token": true,
    "chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]})"),
                                                      "c.json"));
  EXPECT_EQ(tokenizer->bos, 1);
  EXPECT_EQ(tokenizer->eos, 6);
  EXPECT_FALSE(tokenizer->pad.has_value());
  EXPECT_TRUE(tokenizer->adds_bos);
  EXPECT_EQ(tokenizer->chat_template, "D");
  EXPECT_EQ(tokenizer->encode("b", {.add_special = true}), (Ids{1, 2}));
  EXPECT_THROW(tokenizer_config_from_json(Json::parse(R"({"bos_token": 3})"), "c.json"), base::Error);
}

}  // namespace
}  // namespace cepe::text
