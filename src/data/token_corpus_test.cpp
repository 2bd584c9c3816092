#include "data/token_corpus.h"

#include <gtest/gtest.h>

#include <numeric>

#include "data/corpus_index.h"
#include "data/corpus_writer.h"
#include "expect_error.h"
#include "temporary_folder.h"

namespace cepe::data {
namespace {

using base::ErrorCode;
using test::content_of;
using test::expect_error;

// Documents of these lengths; the token at place i of the corpus is i modulo the vocabulary.
void write_corpus(const base::Path& folder, const std::vector<int64_t>& lengths, int64_t vocabulary,
                  int64_t shard_tokens) {
  CorpusWriterSettings settings;
  settings.vocabulary = vocabulary;
  settings.shard_tokens = shard_tokens;
  CorpusWriter writer(folder, settings);
  int64_t first = 0;
  for (const int64_t length : lengths) {
    std::vector<text::Token> ids(static_cast<size_t>(length));
    for (auto& id : ids) id = static_cast<text::Token>(first++ % vocabulary);
    writer.append({"d" + std::to_string(writer.documents()), "file.jsonl", "books"}, ids);
  }
  writer.finish();
}

class TokenCorpusFiles : public testing::Test {
 protected:
  // Replaces the first `old` in a file.
  void change(const std::string& name, const std::string& old, const std::string& now) {
    std::string content = content_of(folder_ / name);
    const size_t at = content.find(old);
    ASSERT_NE(at, std::string::npos) << content;
    folder_.write(name, content.replace(at, old.size(), now));
  }
  void expect_corrupt(const std::string& text) {
    expect_error(ErrorCode::corrupt, text, [&] { TokenCorpus::open(folder_.path()).verify(); });
  }

  test::TemporaryFolder folder_;
};

TEST_F(TokenCorpusFiles, EveryStretchReadsAsWrittenInTwoAndInFourBytesAndAcrossShards) {
  for (const int64_t vocabulary : {int64_t{50}, int64_t{65536}, int64_t{65537}, int64_t{1} << 31 >> 1}) {
    for (const int64_t shard_tokens : {5, 27, 1000}) {
      const test::TemporaryFolder folder;
      write_corpus(folder.path(), {3, 20, 1, 30}, vocabulary, shard_tokens);
      const TokenCorpus corpus = TokenCorpus::open(folder.path());
      corpus.verify();
      EXPECT_EQ(corpus.tokens(), 54);
      EXPECT_EQ(corpus.vocabulary(), vocabulary);
      EXPECT_EQ(corpus.index().bytes_per_id, vocabulary <= 65536 ? 2 : 4);
      EXPECT_EQ(corpus.index().shards.size(), static_cast<size_t>((54 + shard_tokens - 1) / shard_tokens));
      for (int64_t first = 0; first <= 54; ++first) {
        for (int64_t count = 0; first + count <= 54; count += 5) {
          std::vector<text::Token> ids(static_cast<size_t>(count)), expected(ids.size());
          for (size_t i = 0; i < expected.size(); ++i)
            expected[i] = static_cast<text::Token>((first + static_cast<int64_t>(i)) % vocabulary);
          corpus.read(first, ids);
          ASSERT_EQ(ids, expected) << first << " " << count;
        }
      }
    }
  }
}

TEST_F(TokenCorpusFiles, DocumentsKeepTheirOrderAndPlaces) {
  write_corpus(folder_.path(), {3, 20, 1}, 50, 10);
  const TokenCorpus corpus = TokenCorpus::open(folder_.path());
  ASSERT_EQ(corpus.documents().size(), 3u);
  EXPECT_EQ(corpus.documents()[1].id, "d1");
  EXPECT_EQ(corpus.documents()[1].source, "file.jsonl");
  EXPECT_EQ(corpus.documents()[1].domain, "books");
  EXPECT_EQ(corpus.documents()[1].first, 3);
  EXPECT_EQ(corpus.documents()[2].first, 23);
  EXPECT_EQ(corpus.documents()[2].tokens, 1);
}

TEST_F(TokenCorpusFiles, ReadingBeyondTheEndIsRefused) {
  write_corpus(folder_.path(), {10}, 50, 4);
  const TokenCorpus corpus = TokenCorpus::open(folder_.path());
  std::vector<text::Token> ids(5);
  for (const int64_t first : {int64_t{6}, int64_t{-1}, std::numeric_limits<int64_t>::max()})
    expect_error(ErrorCode::invalid_argument, "the corpus has 10", [&] { corpus.read(first, ids); });
}

TEST_F(TokenCorpusFiles, AChangedByteIsNoticed) {
  write_corpus(folder_.path(), {10, 5}, 50, 8);
  std::string bytes = content_of(folder_ / "tokens-00001.bin");
  bytes[2] ^= 1;
  folder_.write("tokens-00001.bin", bytes);
  expect_error(ErrorCode::corrupt, "tokens-00001.bin", [&] { TokenCorpus::open(folder_.path()).verify(); });
}

TEST_F(TokenCorpusFiles, IdsOutsideTheVocabularyAreNotHandedOut) {
  write_corpus(folder_.path(), {10}, 50, 8);
  change("tokens-00000.bin", std::string("\x02\x00", 2), "\xff\xff");
  const TokenCorpus corpus = TokenCorpus::open(folder_.path());
  std::vector<text::Token> ids(2);
  corpus.read(0, ids);
  expect_error(ErrorCode::corrupt, "65535 is outside the vocabulary of 50", [&] { corpus.read(1, ids); });
}

TEST_F(TokenCorpusFiles, FilesThatContradictEachOtherAreNamed) {
  write_corpus(folder_.path(), {10, 5}, 50, 8);
  const std::string index = content_of(folder_ / "corpus.json"), documents = content_of(folder_ / "documents.jsonl");
  const std::string tokens = content_of(folder_ / "tokens-00000.bin");
  const auto restore = [&] {
    folder_.write("corpus.json", index);
    folder_.write("documents.jsonl", documents);
    folder_.write("tokens-00000.bin", tokens);
  };
  folder_.write("tokens-00000.bin", tokens.substr(1));
  expect_corrupt("tokens-00000.bin: 15 bytes");
  restore();
  folder_.write("documents.jsonl", documents.substr(1));
  expect_corrupt("documents.jsonl: its checksum");
  restore();
  change("corpus.json", "\"tokens\": 15", "\"tokens\": 16");
  expect_corrupt("the shards hold 15 tokens");
  restore();
  change("corpus.json", "\"documents\": 2", "\"documents\": 3");
  expect_corrupt("2 documents of 15 tokens; corpus.json says 3");
  restore();
  change("corpus.json", "\"bytes_per_id\": 2", "\"bytes_per_id\": 3");
  expect_corrupt("'bytes_per_id'");
  restore();
  change("corpus.json", "\"vocabulary\": 50", "\"vocabulary\": 65537");
  expect_corrupt("'bytes_per_id'");
  restore();
  change("corpus.json", "\"version\": 1", "\"version\": 2");
  expect_error(ErrorCode::unsupported, "version 2", [&] { TokenCorpus::open(folder_.path()); });
  restore();
  std::filesystem::remove(folder_ / "tokens-00001.bin");
  expect_error(ErrorCode::not_found, "tokens-00001.bin", [&] { TokenCorpus::open(folder_.path()); });
}

TEST_F(TokenCorpusFiles, AFolderWithoutACorpusSaysWhatIsMissing) {
  expect_error(ErrorCode::not_found, "corpus.json", [&] { TokenCorpus::open(folder_.path()); });
  CorpusWriterSettings settings;
  settings.vocabulary = 5;
  const CorpusWriter unfinished(folder_ / "new", settings);
  expect_error(ErrorCode::not_found, "not finished", [&] { TokenCorpus::open(folder_ / "new"); });
}

TEST_F(TokenCorpusFiles, AnEmptyCorpusIsACorpus) {
  write_corpus(folder_.path(), {}, 50, 8);
  const TokenCorpus corpus = TokenCorpus::open(folder_.path());
  corpus.verify();
  EXPECT_EQ(corpus.tokens(), 0);
  EXPECT_TRUE(corpus.documents().empty());
}

TEST(CorpusIndex, ShardsWhoseTokensOverflowAreRefused) {
  const std::string digest(64, 'a');
  std::string shard = R"({"tokens": 9223372036854775807, "sha256": ")" + digest + "\"}";
  const std::string text = R"({"version": 1, "vocabulary": 5, "bytes_per_id": 2, "tokenizer": "", "documents": 0,
    "tokens": 5, "documents_sha256": ")" +
                           digest + R"(", "shards": [)" + shard + "," + shard + "]}";
  expect_error(ErrorCode::corrupt, "add up to more", [&] { parse_corpus_index(text, "corpus.json"); });
}

TEST(CorpusIndex, ABadLineOfTheDocumentsIsNamed) {
  const std::string good = R"({"id": "a", "source": "s", "domain": "d", "tokens": 5})";
  for (const std::string bad : {"{}", "[]", "x", R"({"id": "a", "source": "s", "domain": "d", "tokens": -1})"}) {
    const std::string text = std::string(good).append("\n").append(bad).append("\n");
    expect_error(ErrorCode::corrupt, "documents.jsonl, line 2",
                 [&] { parse_corpus_documents(text, "documents.jsonl"); });
  }
  expect_error(ErrorCode::corrupt, "line 2: is cut short",
               [&] { parse_corpus_documents(good + "\n" + good, "documents.jsonl"); });
}

}  // namespace
}  // namespace cepe::data
