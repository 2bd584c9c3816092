#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace cepe::text {
namespace {

// A GGUF file of metadata only (version 3; value types by the published specification).
class GgufWriter {
 public:
  void text(const std::string& key, const std::string& value) { begin(key, 8), put_text(value); }
  void integer(const std::string& key, uint32_t value) { begin(key, 4), put(value); }
  void boolean(const std::string& key, bool value) { begin(key, 7), put(static_cast<uint8_t>(value)); }
  void texts(const std::string& key, const std::vector<std::string>& values) {
    begin_array(key, 8, values.size());
    for (const auto& value : values) put_text(value);
  }
  template <class T>
  void numbers(const std::string& key, uint32_t type, const std::vector<T>& values) {
    begin_array(key, type, values.size());
    for (const T value : values) put(value);
  }
  formats::Checkpoint open() const {
    std::string file = "GGUF";
    const auto append = [&](auto value) { file.append(reinterpret_cast<const char*>(&value), sizeof value); };
    append(uint32_t{3}), append(uint64_t{0}), append(count_);
    const auto path = std::filesystem::temp_directory_path() / ("tokenizer-" + std::to_string(::getpid()) + ".gguf");
    base::replace_file(path, file + body_);
    auto checkpoint = formats::Checkpoint::open(path);
    std::filesystem::remove(path);
    return checkpoint;
  }

 private:
  template <class T>
  void put(T value) {
    body_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put_text(const std::string& value) { put(uint64_t{value.size()}), body_ += value; }
  void begin(const std::string& key, uint32_t type) { put_text(key), put(type), ++count_; }
  void begin_array(const std::string& key, uint32_t type, size_t size) {
    begin(key, 9), put(type), put(uint64_t{size});
  }
  std::string body_;
  uint64_t count_ = 0;
};

const base::Path golden_bpe = "tests/golden/tokenizers/sentencepiece-bpe";

GgufWriter as_gguf(const sentencepiece::SentencePieceProcessor& model) {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;
  for (int id = 0; id < model.GetPieceSize(); ++id) {
    tokens.push_back(model.IdToPiece(id));
    scores.push_back(model.GetScore(id));
    types.push_back(model.IsUnknown(id) ? 2 : model.IsControl(id) ? 3 : model.IsByte(id) ? 6 : 1);
  }
  GgufWriter writer;
  writer.text("tokenizer.ggml.model", "llama");
  writer.texts("tokenizer.ggml.tokens", tokens);
  writer.numbers("tokenizer.ggml.scores", 6, scores);
  writer.numbers("tokenizer.ggml.token_type", 5, types);
  writer.integer("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(model.bos_id()));
  writer.integer("tokenizer.ggml.unknown_token_id", static_cast<uint32_t>(model.unk_id()));
  return writer;
}

TEST(GgufTokenizer, ScoresTokeniseAsSentencePieceDoes) {
  sentencepiece::SentencePieceProcessor model;
  ASSERT_TRUE(model.Load((golden_bpe / "tokenizer.model").string()).ok());
  const auto tokenizer = load_gguf_tokenizer(as_gguf(model).open());
  const auto cases = base::parse_json(base::read_file(golden_bpe / "cases.json"), "cases.json");
  ASSERT_FALSE(cases.empty());
  for (const auto& item : cases) {
    const auto ids = item.at("ids").get<std::vector<Token>>();
    const auto text = item.at("text").get<std::string>();
    EXPECT_EQ(tokenizer->encode(text, {.add_special = true, .parse_special = true}), ids) << text;
    EXPECT_EQ(tokenizer->decode(ids), item.at("decoded").get<std::string>());
  }
}

GgufWriter small_gpt2(const std::string& pre) {
  GgufWriter writer;
  writer.text("tokenizer.ggml.model", "gpt2");
  writer.text("tokenizer.ggml.pre", pre);
  writer.texts("tokenizer.ggml.tokens", {"1", "2", "3", "4", "12", "123", "a", "<end>"});
  writer.texts("tokenizer.ggml.merges", {"1 2", "12 3"});
  writer.numbers("tokenizer.ggml.token_type", 5, std::vector<int32_t>{1, 1, 1, 1, 1, 1, 1, 3});
  return writer;
}

TEST(GgufTokenizer, ThePreTokeniserDecidesWhatMayMerge) {
  using Ids = std::vector<Token>;
  EXPECT_EQ(load_gguf_tokenizer(small_gpt2("smollm").open())->encode("a1234"), (Ids{6, 0, 1, 2, 3}));
  EXPECT_EQ(load_gguf_tokenizer(small_gpt2("gpt-2").open())->encode("a1234"), (Ids{6, 5, 3}));
  EXPECT_EQ(load_gguf_tokenizer(small_gpt2("qwen2").open())->encode("a1234"), (Ids{6, 0, 1, 2, 3}));
  EXPECT_EQ(load_gguf_tokenizer(small_gpt2("llama-bpe").open())->encode("a1234"), (Ids{6, 5, 3}));
  EXPECT_EQ(load_gguf_tokenizer(small_gpt2("default").open())->encode("a1234"), (Ids{6, 5, 3}));
  EXPECT_EQ(load_gguf_tokenizer(small_gpt2("gpt-2").open())->encode("a<end>", {.parse_special = true}), (Ids{6, 7}));
  EXPECT_THROW(load_gguf_tokenizer(small_gpt2("telepathy").open()), base::Error);
}

TEST(GgufTokenizer, ContradictionsAreRefused) {
  GgufWriter few_types = small_gpt2("gpt-2");
  few_types.integer("tokenizer.ggml.bos_token_id", 8);
  EXPECT_THROW(load_gguf_tokenizer(few_types.open()), base::Error);
  GgufWriter no_scores;
  no_scores.text("tokenizer.ggml.model", "llama");
  no_scores.texts("tokenizer.ggml.tokens", {"a"});
  EXPECT_THROW(load_gguf_tokenizer(no_scores.open()), base::Error);
  no_scores.numbers("tokenizer.ggml.scores", 6, std::vector<float>{1, 2});
  EXPECT_THROW(load_gguf_tokenizer(no_scores.open()), base::Error);
}

}  // namespace
}  // namespace cepe::text
