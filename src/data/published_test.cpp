#include "data/published.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/json.h"
#include "byte_tokenizer.h"
#include "data/corpus_import.h"
#include "data/corpus_writer.h"
#include "expect_error.h"
#include "temporary_folder.h"

namespace cepe::data {
namespace {

using base::ErrorCode;
using test::expect_error;

const base::Path golden = "tests/golden/formats";

std::vector<PublishedSample> read_samples(const base::Path& folder, int64_t vocabulary = 1 << 20) {
  PublishedSamples reader(folder, vocabulary);
  std::vector<PublishedSample> samples;
  while (auto sample = reader.next()) samples.push_back(std::move(*sample));
  return samples;
}

std::vector<std::vector<text::Token>> read_documents(const base::Path& file, int64_t vocabulary = 1 << 20) {
  PublishedDocuments reader(file, vocabulary);
  std::vector<std::vector<text::Token>> documents;
  while (auto document = reader.next()) documents.push_back(std::move(*document));
  return documents;
}

// Documents of these lengths; the token at place i of the corpus is i.
TokenCorpus corpus_of_lengths(const base::Path& folder, const std::vector<int64_t>& lengths) {
  CorpusWriterSettings settings;
  settings.vocabulary = 1 << 20;
  CorpusWriter writer(folder, settings);
  for (const int64_t length : lengths) {
    std::vector<text::Token> ids(static_cast<size_t>(length));
    std::iota(ids.begin(), ids.end(), static_cast<text::Token>(writer.tokens()));
    writer.append({"", "", "books"}, ids);
  }
  writer.finish();
  return TokenCorpus::open(folder);
}

TEST(Published, SamplesOfTheLibraryRead) {
  const base::Json expected = base::parse_json(base::read_file(golden / "mds/expected.json"), "expected.json");
  for (const std::string name : {"plain", "zstd"}) {
    const auto samples = read_samples(golden / "mds" / name);
    ASSERT_EQ(samples.size(), expected[name].size());
    for (size_t i = 0; i < samples.size(); ++i) {
      EXPECT_EQ(base::Json(samples[i].tokens), expected[name][i]["token_ids"]);
      EXPECT_EQ(base::Json(samples[i].previous), expected[name][i]["prev_token_ids"]);
      EXPECT_EQ(base::Json(samples[i].domain), expected[name][i]["domain"]);
    }
  }
  expect_error(ErrorCode::unsupported, "no column 'token_ids'", [] { read_samples(golden / "mds/encodings"); });
  expect_error(ErrorCode::corrupt, "sample 0, ", [] { read_samples(golden / "mds/plain", 100); });
}

TEST(Published, FoldersOfAllDomainsAreFound) {
  EXPECT_EQ(list_mds_folders(golden / "mds").size(), 3u);
  EXPECT_EQ(list_mds_folders(golden / "mds/zstd"), std::vector<base::Path>{golden / "mds/zstd"});
  expect_error(ErrorCode::not_found, "index.json", [] { list_mds_folders(golden / "npy"); });
}

TEST(Published, DocumentsOfNumpyRead) {
  const base::Json expected = base::parse_json(base::read_file(golden / "npy/documents.json"), "documents.json");
  EXPECT_EQ(base::Json(read_documents(golden / "npy/documents-0.npy")), expected);
  expect_error(ErrorCode::unsupported, "one row", [] { read_documents(golden / "npy/matrix.npy"); });
  expect_error(ErrorCode::corrupt, "expected 0 to 1", [] { read_documents(golden / "npy/documents-0.npy", 2); });
}

TEST(Published, LengthsThatDoNotAddUpAreRefused) {
  const test::TemporaryFolder folder;
  const auto refused = [&](const std::string& text, const std::vector<int64_t>& numbers) {
    const std::vector<int64_t> shape{static_cast<int64_t>(numbers.size())};
    std::string file = formats::npy_header({'i', 8}, shape);
    file.append(reinterpret_cast<const char*>(numbers.data()), numbers.size() * 8);
    const base::Path path = folder.write("x.npy", file);
    expect_error(ErrorCode::corrupt, text, [&] { read_documents(path); });
  };
  refused("4 documents in an array of 4", {4, 1, 1, 1});
  refused("-1 documents", {-1, 1});
  refused("document 1 of length 2 with 1 tokens left", {2, 1, 2, 5, 5});
  refused("document 0 of length -1", {1, -1, 5});
  refused("1 tokens belong to no document", {1, 1, 5, 5});
}

TEST(Published, DocumentsWrittenReadBack) {
  const test::TemporaryFolder folder;
  const TokenCorpus corpus = corpus_of_lengths(folder / "c", {3, 1, 5});
  write_published_documents(corpus, folder / "x.npy");
  EXPECT_EQ(read_documents(folder / "x.npy"), (std::vector<std::vector<text::Token>>{{0, 1, 2}, {3}, {4, 5, 6, 7, 8}}));
}

TEST(Published, SamplesAreCutFromLongDocumentsWithAStepOfTheDecodersTokens) {
  const test::TemporaryFolder folder;
  const TokenCorpus corpus = corpus_of_lengths(folder / "c", {3, 9, 5});
  std::filesystem::create_directory(folder / "m");
  EXPECT_EQ(write_published_samples(corpus, 3, 2, folder / "m", {.zstd = true}), 4);
  const auto samples = read_samples(folder / "m");
  ASSERT_EQ(samples.size(), 4u);
  EXPECT_EQ(samples[0].previous, (std::vector<text::Token>{3, 4, 5}));
  EXPECT_EQ(samples[0].tokens, (std::vector<text::Token>{6, 7}));
  EXPECT_EQ(samples[2].tokens, (std::vector<text::Token>{10, 11}));
  EXPECT_EQ(samples[3].previous, (std::vector<text::Token>{12, 13, 14}));
  EXPECT_EQ(samples[3].domain, "books");
  std::filesystem::create_directory(folder / "n");
  EXPECT_EQ(write_published_samples(corpus, 0, 4, folder / "n"), 3);
  EXPECT_TRUE(read_samples(folder / "n")[0].previous.empty());
  expect_error(ErrorCode::invalid_argument, "0 tokens", [&] { write_published_samples(corpus, 1, 0, folder / "n"); });
}

TEST(Published, ACorpusWithoutALongEnoughDocumentGivesNoSamples) {
  const test::TemporaryFolder folder;
  const TokenCorpus corpus = corpus_of_lengths(folder / "c", {4, 5});
  std::filesystem::create_directory(folder / "m");
  expect_error(ErrorCode::invalid_argument, "the longest document of the corpus has only 5",
               [&] { write_published_samples(corpus, 4, 2, folder / "m"); });
  EXPECT_TRUE(std::filesystem::is_empty(folder / "m"));
  EXPECT_EQ(write_published_samples(corpus, 3, 2, folder / "m"), 1);
}

TEST(Published, AnImportOfNothingIsRefused) {
  const test::TemporaryFolder folder;
  const test::ByteTokenizer tokenizer(32000);
  write_published_documents(corpus_of_lengths(folder / "empty", {0}), folder / "a.npy");
  expect_error(ErrorCode::invalid_argument, "the 1 sources hold no document with text; 1 documents are empty", [&] {
    import_corpus({{}, {folder / "a.npy"}}, tokenizer, folder / "c", {});
  });
  EXPECT_FALSE(std::filesystem::exists(folder / "c/corpus.json"));
}

TEST(Published, SamplesAndDocumentsBecomeACorpus) {
  const test::TemporaryFolder folder;
  const test::ByteTokenizer tokenizer(32000);
  const ImportSources sources{{golden / "mds/plain", golden / "mds/zstd"}, {golden / "npy/documents-0.npy"}};
  const CorpusReport report = import_corpus(sources, tokenizer, folder / "c", {.shard_tokens = 50});
  EXPECT_EQ(report.documents, 11);
  const TokenCorpus corpus = TokenCorpus::open(folder / "c");
  corpus.verify();
  const auto samples = read_samples(golden / "mds/plain");
  for (size_t i = 0; i < samples.size(); ++i) {
    for (const size_t copy : {i, i + samples.size()}) {
      const CorpusDocument& document = corpus.documents()[copy];
      std::vector<text::Token> ids(static_cast<size_t>(document.tokens)), expected = samples[i].previous;
      expected.insert(expected.end(), samples[i].tokens.begin(), samples[i].tokens.end());
      corpus.read(document.first, ids);
      EXPECT_EQ(ids, expected);
      EXPECT_EQ(document.domain, !samples[i].domain.empty() ? samples[i].domain : copy == i ? "plain" : "zstd");
    }
  }
  EXPECT_EQ(corpus.documents().back().domain, "documents");
  EXPECT_EQ(corpus.documents().back().tokens, 9);
}

TEST(Published, AnImportThatFailedGoesOnWhereItStopped) {
  const test::TemporaryFolder folder;
  const test::ByteTokenizer tokenizer(32000);
  const base::Path later = folder / "later.npy";
  write_published_documents(corpus_of_lengths(folder / "long", {10000, 10000, 10000}), later);
  const std::string whole = test::content_of(later);
  std::string damaged = whole;  // in the middle, where it does not make it another file
  damaged[whole.size() / 16 * 8 + 4] = 1;
  folder.write("later.npy", damaged);
  const ImportSources sources{{golden / "mds/plain"}, {golden / "npy/documents-0.npy", later}};
  expect_error(ErrorCode::corrupt, "later.npy", [&] { import_corpus(sources, tokenizer, folder / "c", {}); });
  folder.write("later.npy", whole);
  const CorpusReport report = import_corpus(sources, tokenizer, folder / "c", {});
  EXPECT_EQ(report.found, 8);
  EXPECT_EQ(report.documents, 10);
  import_corpus(sources, tokenizer, folder / "once", {});
  for (const char* name : {"corpus.json", "documents.jsonl", "tokens-00000.bin"})
    EXPECT_EQ(test::content_of(folder / "c" / name), test::content_of(folder / "once" / name)) << name;
}

TEST(Published, AnImportOfReplacedSourcesIsRefused) {
  const test::TemporaryFolder folder;
  const test::ByteTokenizer tokenizer(32000);
  const ImportSources sources{{folder / "m"}, {folder / "a.npy"}};
  const auto import = [&] { return import_corpus(sources, tokenizer, folder / "c", {}).documents; };
  const auto write_samples = [&](const std::string& name, const std::vector<int64_t>& lengths) {
    std::filesystem::remove_all(folder / "m");
    std::filesystem::create_directory(folder / "m");
    write_published_samples(corpus_of_lengths(folder / name, lengths), 3, 2, folder / "m");
  };
  const TokenCorpus documents = corpus_of_lengths(folder / "documents", {3, 4});
  write_samples("samples", {5, 5});
  write_published_documents(documents, folder / "a.npy");
  EXPECT_EQ(import(), 4);
  EXPECT_EQ(import(), 4) << "the same";
  write_samples("longer", {1, 5, 5});
  expect_error(ErrorCode::invalid_argument, "mds[", import);
  write_samples("samples-again", {5, 5});
  write_published_documents(corpus_of_lengths(folder / "others", {4, 3}), folder / "a.npy");
  expect_error(ErrorCode::invalid_argument, "npy[0]: was", import);
}

}  // namespace
}  // namespace cepe::data
