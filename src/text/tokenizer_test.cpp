// Promises of every kind of tokenizer, on the small ones in tests/golden.
#include "text/tokenizer.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <thread>

#include "base/error.h"
#include "expect_error.h"
#include "temporary_folder.h"
#include "text/utf8.h"

namespace cepe::text {
namespace {

const base::Path golden = "tests/golden/tokenizers";

const std::vector<std::unique_ptr<Tokenizer>>& all() {
  static const auto loaded = [] {
    std::vector<std::unique_ptr<Tokenizer>> tokenizers;
    for (const auto& entry : std::filesystem::directory_iterator(golden)) {
      if (entry.is_directory()) tokenizers.push_back(load_tokenizer(entry.path()));
    }
    return tokenizers;
  }();
  return loaded;
}

double seconds_to_encode(const Tokenizer& tokenizer, const std::string& text) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(tokenizer.encode(text).empty());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

RC_GTEST_PROP(StreamDecoder, EmitsWholeCharactersThatJoinToTheDecodedText, ()) {
  const auto& tokenizer = *all()[*rc::gen::inRange<size_t>(0, all().size())];
  const auto size = static_cast<Token>(tokenizer.vocabulary_size());
  const auto ids = *rc::gen::container<std::vector<Token>>(rc::gen::inRange<Token>(0, size));
  const bool skip_special = *rc::gen::arbitrary<bool>();
  StreamDecoder stream(tokenizer, skip_special);
  std::string joined;
  for (const Token id : ids) {
    const std::string part = stream.put(id);
    RC_ASSERT(is_utf8(part));
    joined += part;
  }
  joined += stream.finish();
  RC_ASSERT(is_utf8(joined));
  RC_ASSERT(joined == tokenizer.decode(ids, skip_special));
}

RC_GTEST_PROP(Tokenizer, AnyBytesEncodeToIdsOfTheVocabulary, (const std::string& text)) {
  for (const auto& tokenizer : all()) {
    for (const Token id : tokenizer->encode(text, {.add_special = true, .parse_special = true})) {
      RC_ASSERT(id >= 0 && id < tokenizer->vocabulary_size());
      RC_ASSERT(!tokenizer->token_of(id).empty());
    }
  }
}

RC_GTEST_PROP(Tokenizer, ByteLevelTextComesBackUnchanged, (const std::string& text)) {
  static const auto tokenizer = load_tokenizer(golden / "gemma-like");
  const std::string sound = replace_invalid(text);
  RC_PRE(sound.find("\xE2\x96\x81") == std::string::npos);  // its space
  RC_ASSERT(tokenizer->decode(tokenizer->encode(sound)) == sound);
}

TEST(StreamDecoder, ACharacterOfSeveralTokensAppearsWhenItIsWhole) {
  const auto tokenizer = load_tokenizer(golden / "gpt2-like");
  const auto ids = tokenizer->encode("\xF0\x9F\x98\x80");  // an emoji: a space, then byte by byte
  ASSERT_GE(ids.size(), 4u);
  StreamDecoder stream(*tokenizer);
  std::vector<std::string> parts;
  parts.reserve(ids.size());
  for (const Token id : ids) parts.push_back(stream.put(id));
  EXPECT_EQ(parts.back(), "\xF0\x9F\x98\x80");
  EXPECT_EQ(parts[parts.size() - 2], "");
  EXPECT_EQ(stream.finish(), "");
  StreamDecoder cut(*tokenizer);
  for (size_t i = 0; i + 1 < ids.size(); ++i) cut.put(ids[i]);
  EXPECT_EQ(cut.finish(), "\xEF\xBF\xBD");
}

// A model whose embedding was rounded up may choose such an id.
TEST(StreamDecoder, AnIdWithoutATokenIsNoText) {
  const auto tokenizer = load_tokenizer(golden / "gpt2-like");
  StreamDecoder stream(*tokenizer);
  std::string text;
  for (const Token id : tokenizer->encode("one")) text += stream.put(id);
  text += stream.put(static_cast<Token>(tokenizer->vocabulary_size()));
  for (const Token id : tokenizer->encode(" two")) text += stream.put(id);
  EXPECT_EQ(text + stream.finish(), " one two");  // it puts a space in front
}

TEST(Tokenizer, AMegabyteWithoutASpaceTakesSeconds) {
  std::string varied;
  for (size_t i = 0; i < (size_t{1} << 20); ++i) varied += static_cast<char>('a' + (i * i / 7) % 26);
  for (const auto& tokenizer : all()) {
    EXPECT_LT(seconds_to_encode(*tokenizer, varied), 10);
    EXPECT_LT(seconds_to_encode(*tokenizer, std::string(size_t{1} << 20, 'a')), 10);
    EXPECT_LT(seconds_to_encode(*tokenizer, "a" + std::string(size_t{1} << 20, ' ') + "b"), 10);
  }
}

TEST(Tokenizer, ThreadsShareOne) {
  const auto tokenizer = load_tokenizer(golden / "llama2-like");
  const std::string text = "the wages of labour, and the profits of stock; na\xC3\xAFve";
  const auto expected = tokenizer->encode(text);
  std::vector<std::thread> threads;
  std::array<bool, 4> same{};
  for (size_t t = 0; t < same.size(); ++t) {
    threads.emplace_back([&, t] {
      same[t] = true;
      for (int i = 0; i < 200; ++i) same[t] = same[t] && tokenizer->encode(text) == expected;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(same, (std::array<bool, 4>{true, true, true, true}));
}

TEST(LoadTokenizer, SaysWhichFilesItLookedFor) {
  try {
    load_tokenizer("src/text");
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ErrorCode::not_found);
    EXPECT_NE(std::string(error.what()).find("tokenizer.json, tokenizer.model and vocab.txt"), std::string::npos);
  }
  EXPECT_THROW(load_tokenizer("no/such/folder"), base::Error);
}

struct TokenizerFolder : testing::Test {
  test::TemporaryFolder folder;
  void expect_refused(base::ErrorCode code, const std::string& text) const {
    test::expect_error(code, text, [&] { load_tokenizer(folder.path()); });
  }
};

TEST_F(TokenizerFolder, APointerOfGitLfsIsToldFromADamagedFile) {
  base::replace_file(folder / "tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n");
  expect_refused(base::ErrorCode::invalid_argument, "git lfs pull");
}

// Gemma's are of this kind.
TEST_F(TokenizerFolder, AUserDefinedSymbolThatIsSpecialIsNoneInADocument) {
  // A further piece of the model: its text, its score, its type (user-defined).
  const std::string piece("\x0A\x0D\x0A\x04<go>\x15\0\0\0\0\x18\x04", 15);
  base::replace_file(folder / "tokenizer.model",
                     base::read_file(golden / "sentencepiece-bpe" / "tokenizer.model") + piece);
  const auto plain = load_tokenizer(folder.path());
  const Token symbol = plain->id_of("<go>").value();
  const auto count = [&](const Tokenizer& tokenizer, const EncodeOptions& options) {
    const std::vector<Token> ids = tokenizer.encode("a <go> b", options);
    return std::count(ids.begin(), ids.end(), symbol);
  };
  EXPECT_EQ(count(*plain, {}), 1);
  base::replace_file(folder / "tokenizer_config.json", R"({"added_tokens_decoder": {")" + std::to_string(symbol) +
                                                           R"(": {"content": "<go>", "special": true}}})");
  const auto special = load_tokenizer(folder.path());
  EXPECT_EQ(count(*special, {}), 0);
  EXPECT_EQ(special->decode(special->encode("a <go> b")), "a <go> b");
  EXPECT_EQ(count(*special, {.parse_special = true}), 1);
  EXPECT_EQ(count(*special, {.parse_special = true, .literal_mask = "12345678"}), 0);
}

TEST_F(TokenizerFolder, AnAddedTokensIdMakesNoHugeVocabulary) {
  std::filesystem::copy(golden / "sentencepiece-bpe" / "tokenizer.model", folder / "tokenizer.model");
  base::replace_file(folder / "tokenizer_config.json",
                     R"({"added_tokens_decoder": {"2147483647": {"content": "<far>"}}})");
  expect_refused(base::ErrorCode::corrupt, "id 2147483647 of '<far>' is out of range");
}

}  // namespace
}  // namespace cepe::text
