#include "data/corpus_builder.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "base/log.h"
#include "byte_tokenizer.h"
#include "data/corpus_index.h"
#include "data/corpus_writer.h"
#include "expect_error.h"
#include "temporary_folder.h"

namespace cepe::data {
namespace {

using base::ErrorCode;
using base::Path;
using test::ByteTokenizer;
using test::content_of;
using test::expect_error;

std::string line(const std::string& text, const std::string& more = "") {
  return "{\"text\": \"" + text + "\"" + more + "}\n";
}

class CorpusBuilder : public testing::Test {
 protected:
  CorpusBuilder() { base::set_log_level(base::LogLevel::error); }

  CorpusReport build(const std::string& name, const std::vector<Path>& files, const CorpusOptions& options = {}) {
    return build_corpus(files, tokenizer_, folder_ / name, options);
  }
  std::vector<Path> numbered_files(int files, int documents) {
    std::vector<Path> paths;
    for (int i = 0; i < files; ++i) {
      std::string content;
      for (int j = 0; j < documents; ++j)
        content += line(std::string(static_cast<size_t>((j * 131 + i) % 700), static_cast<char>('a' + j % 26)));
      paths.push_back(folder_.write("in/part-" + std::to_string(i) + ".jsonl", content));
    }
    return paths;
  }
  std::string text_of(const std::string& name) {
    const TokenCorpus corpus = TokenCorpus::open(folder_ / name);
    std::vector<text::Token> ids(static_cast<size_t>(corpus.tokens()));
    corpus.read(0, ids);
    std::string text;
    for (const auto id : ids) text += id == 256 ? '<' : id == 257 ? '>' : static_cast<char>(id);
    return text;
  }
  void expect_same_files(const std::string& one, const std::string& other) {
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / one)) {
      const std::string name = entry.path().filename().string();
      EXPECT_TRUE(content_of(folder_.path() / one / name) == content_of(folder_.path() / other / name)) << name;
    }
  }

  test::TemporaryFolder folder_;
  ByteTokenizer tokenizer_;
};

TEST_F(CorpusBuilder, DocumentsStandInOrderWhateverTheThreads) {
  const auto files = numbered_files(3, 200);
  build("one", files, {.threads = 1});
  build("four", files, {.threads = 4});
  expect_same_files("one", "four");
  std::string expected;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 200; ++j)
      expected += std::string(static_cast<size_t>((j * 131 + i) % 700), static_cast<char>('a' + j % 26));
  }
  EXPECT_EQ(text_of("four"), expected);
  TokenCorpus::open(folder_ / "four").verify();
}

TEST_F(CorpusBuilder, DomainsComeFromTheOptionTheFieldOrTheName) {
  EXPECT_EQ(domain_of_file("a/books_train-0.jsonl.zst"), "books_train");
  EXPECT_EQ(domain_of_file("a.b/c-x-12y.txt"), "c-x");
  EXPECT_EQ(domain_of_file("plain"), "plain");
  EXPECT_EQ(domain_of_file("-1.txt"), "unnamed");
  const auto file = folder_.write("wiki-7.jsonl", line("x", ", \"domain\": \"law\"") + line("y", ", \"domain\": 3"));
  build("fields", {file});
  const TokenCorpus fields = TokenCorpus::open(folder_ / "fields");
  EXPECT_EQ(fields.documents()[0].domain, "law");
  EXPECT_EQ(fields.documents()[1].domain, "wiki");
  build("given", {file}, {.domain = "all"});
  EXPECT_EQ(TokenCorpus::open(folder_ / "given").documents()[0].domain, "all");
}

TEST_F(CorpusBuilder, BosEosAndTheLimitFrameEachDocument) {
  const auto file = folder_.write("a.jsonl", line("abcd") + line("") + line("xy"));
  const CorpusReport report = build("framed", {file}, {.bos = true, .eos = true, .max_document_tokens = 4});
  EXPECT_EQ(text_of("framed"), "<abc<xy>");
  EXPECT_EQ(report.documents, 2);
  EXPECT_EQ(report.tokens, 8);
  EXPECT_EQ(report.empty, 1);
  tokenizer_.bos.reset();
  expect_error(ErrorCode::invalid_argument, "no BOS", [&] { build("none", {file}, {.bos = true}); });
}

TEST_F(CorpusBuilder, AnErrorKeepsWhatWasDoneAndTheSameCommandGoesOn) {
  const auto file = folder_.write("a.jsonl", line("one") + "{\n" + line("two") + "{\n" + line("three") + line("four"));
  expect_error(ErrorCode::corrupt, "a.jsonl, line 4", [&] { build("c", {file}, {.max_skipped = 1}); });
  const CorpusReport report = build("c", {file}, {.max_skipped = 2});
  EXPECT_EQ(report.found, 2);
  EXPECT_EQ(report.documents, 4);
  EXPECT_EQ(report.skipped, 2);
  EXPECT_EQ(text_of("c"), "onetwothreefour");
  const CorpusReport again = build("c", {file});
  EXPECT_EQ(again.documents, 4);
  EXPECT_EQ(again.found, 4);
}

TEST_F(CorpusBuilder, ATokenizersErrorReachesTheCaller) {
  const auto file = folder_.write("a.jsonl", line("one") + line("refuse") + line("two"));
  expect_error(ErrorCode::internal, "refused", [&] { build("c", {file}, {.threads = 3}); });
}

TEST_F(CorpusBuilder, OtherInputsOrSettingsAreRefusedByName) {
  const auto file = folder_.write("a.jsonl", line("one") + "{\n");
  expect_error(ErrorCode::corrupt, "line 2", [&] { build("c", {file}); });  // unfinished
  const auto refused = [&](const std::string& text, const std::vector<Path>& files, const CorpusOptions& options) {
    expect_error(ErrorCode::invalid_argument, text, [&] { build("c", files, options); });
  };
  refused("bos: was false, is true", {file}, {.bos = true});
  refused("domain: was \"\", is \"x\"", {file}, {.domain = "x"});
  refused("shard_tokens: was 134217728, is 5", {file}, {.shard_tokens = 5});
  refused("inputs: were 1, are 2", {file, file}, {});
  folder_.write("a.jsonl", line("other") + "{\n");
  refused("inputs[0]", {file}, {});
  folder_.write("a.jsonl", line("one") + "{\n");
  tokenizer_ = ByteTokenizer(300);
  refused("tokenizer: was", {file}, {});
  tokenizer_ = ByteTokenizer();
  build("c", {file}, {.max_skipped = 1});  // the same again: finished
  refused("bos: was false, is true", {file}, {.bos = true});
}

TEST_F(CorpusBuilder, InputsWithoutTextMakeNoCorpusAndDoNotHoldTheFolder) {
  const auto nothing = folder_.write("nothing.txt", ""), lines = folder_.write("lines.jsonl", line("") + "{\n");
  expect_error(ErrorCode::invalid_argument,
               "c: nothing to make a corpus of: the 2 files hold no document with text; 2 documents are empty; 1 bad "
               "lines or files were passed over",
               [&] {
                 build("c", {nothing, lines}, {.max_skipped = 1});
               });
  EXPECT_FALSE(std::filesystem::exists(folder_ / "c/corpus.json"));
  expect_error(ErrorCode::corrupt, "line 2", [&] { build("c", {lines}); });  // no document was written before it
  folder_.write("c/tokens-00000.bin", "of a process that was ended before its first save");
  folder_.write("c/tokens-00001.bin", "of the same");
  const auto mended = folder_.write("lines.jsonl", line("one"));
  build("c", {mended}, {.shard_tokens = 4});
  EXPECT_EQ(text_of("c"), "one");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "c/tokens-00001.bin"));
}

TEST_F(CorpusBuilder, AFolderWithOtherThingsInItIsLeftAlone) {
  const auto file = folder_.write("a.jsonl", line("one"));
  folder_.write("mine/letter.txt", "dear");
  expect_error(ErrorCode::invalid_argument, "not empty", [&] { build("mine", {file}); });
  EXPECT_EQ(content_of(folder_ / "mine/letter.txt"), "dear");
}

TEST_F(CorpusBuilder, TwoBuildsDoNotWriteOneFolder) {
  CorpusWriterSettings settings;
  settings.vocabulary = 5;
  const CorpusWriter first(folder_ / "c", settings);
  expect_error(ErrorCode::invalid_argument, "another program", [&] { CorpusWriter(folder_ / "c", settings); });
}

TEST_F(CorpusBuilder, IdsOutsideTheVocabularyAreRefusedWhole) {
  CorpusWriterSettings settings;
  settings.vocabulary = 5;
  CorpusWriter writer(folder_ / "c", settings);
  for (const text::Token bad : {5, -1})
    expect_error(ErrorCode::invalid_argument, "outside the vocabulary of 5", [&] {
      writer.append({}, std::vector<text::Token>{1, bad});
    });
  EXPECT_EQ(writer.tokens(), 0);
}

// What a build that is ended at this moment has for the next; 0 also where it has come to its end.
int64_t documents_saved(const Path& folder) {
  const base::Json state = base::Json::parse(content_of(folder / "build.json"), nullptr, false);
  return state.is_object() ? state["corpus"]["documents"].get<int64_t>() : 0;
}

bool has_ended(pid_t child) {
  siginfo_t information{};
  return ::waitid(P_PID, static_cast<id_t>(child), &information, WEXITED | WNOHANG | WNOWAIT) != 0 ||
         information.si_pid != 0;
}

// Whether a process that does `work` was killed when `wait` returned; otherwise it had done it.
bool is_killed(const std::function<void()>& work, const std::function<void(pid_t child)>& wait) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      work();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      ::_exit(1);
    }
    ::_exit(0);
  }
  wait(child);
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
  return WIFSIGNALED(status);
}

// A process that is killed at any moment, again and again, ends with the very corpus of one that never was.
TEST_F(CorpusBuilder, KilledAtAnyMomentItGoesOnToTheSameCorpus) {
  const auto files = numbered_files(3, 2000);
  const CorpusOptions options{.shard_tokens = 10'000, .threads = 2, .save_seconds = 0.004};
  CorpusOptions seldom = options;
  seldom.save_seconds = 1000;
  build("whole", files, seldom);
  const auto part = [&] { build("parts", files, options); };
  unsigned killed = 0;
  while (killed < 40 && is_killed(part, [&](pid_t) { ::usleep(2000 + 1500 * killed); })) ++killed;
  EXPECT_GE(killed, 3U);
  // On a busy machine all of them may have been killed before their first save.
  if (killed == 40) {
    is_killed(part, [&](pid_t child) {
      while (documents_saved(folder_ / "parts") == 0 && !has_ended(child)) ::usleep(500);
    });
  }
  const CorpusReport report = build("parts", files, seldom);
  EXPECT_GT(report.found, 0);
  EXPECT_EQ(report.documents, TokenCorpus::open(folder_ / "whole").index().documents);
  expect_same_files("whole", "parts");
}

// It could not be opened.
TEST_F(CorpusBuilder, ACorpusOfTooManyShardsIsRefusedWhileItIsBuilt) {
  const auto file = folder_.write("a.jsonl", line("x") + "{\n" + line("y"));
  const CorpusOptions options{.max_skipped = 1, .shard_tokens = 1};
  expect_error(ErrorCode::corrupt, "line 2", [&] { build("c", {file}, {.shard_tokens = 1}); });
  base::Json state = base::Json::parse(content_of(folder_ / "c/build.json"));
  base::Json& corpus = state["corpus"];
  corpus["shards"] = std::vector<base::Json>(most_corpus_shards, corpus["shards"][0]);
  corpus["tokens"] = most_corpus_shards;
  folder_.write("c/build.json", state.dump());
  expect_error(ErrorCode::invalid_argument, "c: 100000 shards of 1 tokens are full",
               [&] { build("c", {file}, options); });
}

TEST_F(CorpusBuilder, AStateThatContradictsTheFilesIsRefused) {
  const auto file = folder_.write("a.jsonl", line("one") + "{\n");
  expect_error(ErrorCode::corrupt, "line 2", [&] { build("c", {file}); });
  const std::string tokens = content_of(folder_ / "c/tokens-00000.bin");
  folder_.write("c/tokens-00000.bin", tokens.substr(2));
  expect_error(ErrorCode::corrupt, "tokens-00000.bin: 4 bytes; at least 6",
               [&] { build("c", {file}, {.max_skipped = 1}); });
  folder_.write("c/tokens-00000.bin", tokens);
  for (const std::string bad : {"{}", "[]", "{", R"({"corpus": 1})"}) {
    folder_.write("c/build.json", bad);
    expect_error(ErrorCode::corrupt, "build.json", [&] { build("c", {file}, {.max_skipped = 1}); });
  }
}

}  // namespace
}  // namespace cepe::data
