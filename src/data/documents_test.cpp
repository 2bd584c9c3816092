#include "data/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include <fstream>

namespace cepe::data {
namespace {

using base::Error;
using testing::ContainsRegex;
using testing::HasSubstr;

class Documents : public testing::Test {
 protected:
  Documents() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cepe-documents.XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~Documents() override { std::filesystem::remove_all(folder_); }

  base::Path write(const std::string& name, const std::string& content) {
    base::Path path = folder_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  static std::vector<Document> read(const base::Path& path, const DocumentOptions& options = {}) {
    DocumentReader reader(list_document_files(path), options);
    std::vector<Document> documents;
    while (auto document = reader.next()) documents.push_back(std::move(*document));
    return documents;
  }

  static std::string error_of(const base::Path& path, const DocumentOptions& options = {}) {
    try {
      read(path, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  base::Path folder_;
};

std::string zstd(const std::string& plain) {
  std::string out(ZSTD_compressBound(plain.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), plain.data(), plain.size(), 1));
  return out;
}

std::string gzip(const std::string& plain) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string input = plain, out(plain.size() + 1000, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(input.data());
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(out.size() - stream.avail_out);
  deflateEnd(&stream);
  return out;
}

// Lines long enough to cross every buffer.
std::string many_lines(int count) {
  std::string lines;
  for (int i = 0; i < count; ++i) {
    lines +=
        "{\"id\": " + std::to_string(i) + ", \"text\": \"" + std::string(static_cast<size_t>(i) * 37, 'a') + "\"}\n";
  }
  return lines;
}

TEST_F(Documents, JsonLinesReadTheSameWhateverTheirCompression) {
  const std::string lines = many_lines(300);
  const auto middle = static_cast<ptrdiff_t>(lines.find('\n', lines.size() / 2) + 1);
  const std::string first(lines.begin(), lines.begin() + middle), second(lines.begin() + middle, lines.end());
  const auto plain = read(write("a.jsonl", lines));
  ASSERT_EQ(plain.size(), 300u);
  for (const auto& path :
       {write("b.jsonl.zst", zstd(lines)), write("b.jsonl.gz", gzip(lines)),
        write("c.jsonl.zst", zstd(first) + zstd(second)), write("c.jsonl.gz", gzip(first) + gzip(second))}) {
    const auto documents = read(path);
    ASSERT_EQ(documents.size(), plain.size()) << path;
    for (size_t i = 0; i < plain.size(); ++i) {
      ASSERT_EQ(documents[i].text, plain[i].text) << path;
      ASSERT_EQ(documents[i].id, std::to_string(i));
    }
  }
}

TEST_F(Documents, ZerosBehindGzipDataAreNoDamage) {
  const std::string one = gzip("{\"text\": \"one\"}\n"), zeros(300'000, '\0');
  EXPECT_EQ(read(write("a.jsonl.gz", one + zeros)).size(), 1u);
  EXPECT_EQ(read(write("b.jsonl.gz", one + zeros + one)).size(), 2u);
  EXPECT_THAT(error_of(write("c.jsonl.gz", one + zeros + "x")), HasSubstr("c.jsonl.gz"));
}

TEST_F(Documents, NamesInCapitalsAreJsonLinesToo) {
  EXPECT_EQ(read(write("A.JSONL", "{\"text\": \"one\"}\n")).front().text, "one");
  EXPECT_EQ(read(write("A.Jsonl.GZ", gzip("{\"text\": \"one\"}\n"))).front().text, "one");
}

// As zstd --long=31 packs from a pipe: a frame with a window of 2 GiB and one block, stored.
TEST_F(Documents, FramesThatMayLookFarBackAreRead) {
  const std::string lines = "{\"text\": \"one\"}\n";
  const auto header = static_cast<char>(lines.size() << 3 | 1);
  const std::string frame{'\x28', '\xb5', '\x2f', '\xfd', '\0', '\xa8', header, '\0', '\0'};
  EXPECT_EQ(read(write("a.jsonl.zst", frame + lines)).front().text, "one");
}

TEST_F(Documents, LinesAreSplitAtNewlinesOnly) {
  const auto path = write("a.jsonl", "{\"text\": \"a\xe2\x80\xa8\x62\x0b\"}\r\n\n{\"text\": \"c\", \"domain\": \"x\"}");
  EXPECT_THAT(error_of(path), HasSubstr("line 1"));  // JSON has no raw control characters in strings
  write("a.jsonl", "{\"text\": \"a\xe2\x80\xa8\xc2\x85z\"}\r\n\n{\"text\": \"c\", \"domain\": \"x\"}");
  const auto documents = read(path);
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].text, "a\xe2\x80\xa8\xc2\x85z");
  EXPECT_EQ(documents[1].line, 3);
  EXPECT_EQ(documents[1].id, path.string() + ":3");
  EXPECT_EQ(documents[1].fields, base::Json({{"domain", "x"}}));
}

TEST_F(Documents, BadLinesNameFileAndLine) {
  const std::string good = "{\"text\": \"x\"}\n";
  for (const std::string bad :
       {"{", "[]", "{\"text\": 1}", "{\"id\": \"x\"}", "{\"text\": \"\xff\"}", "{\"id\": [], \"text\": \"\"}"}) {
    std::string lines = good;
    lines.append(bad).append("\n").append(good);
    EXPECT_THAT(error_of(write("bad.jsonl", lines)), HasSubstr("bad.jsonl, line 2")) << bad;
  }
}

TEST_F(Documents, BadLinesAreCountedAndPassedOverUpToTheLimit) {
  const auto path =
      write("a.jsonl", "{\n{\"text\": \"x\"}\n}\n" + std::string(500, ' ') + "{\"text\": \"y\"}\n{\"text\": \"z\"}\n");
  DocumentReader reader({path}, {.max_line_bytes = 100, .max_skipped = 3});
  EXPECT_EQ(reader.next()->text, "x");
  EXPECT_EQ(reader.next()->text, "z");
  EXPECT_FALSE(reader.next().has_value());
  EXPECT_EQ(reader.skipped(), 3);
  EXPECT_THAT(error_of(path, {.max_skipped = 1}), HasSubstr("line 3"));
}

TEST_F(Documents, LinesBeyondTheLimitAreRefused) {
  const auto path = write("a.jsonl", "{\"text\": \"" + std::string(3 << 20, 'a') + "\"}\n{\"text\": \"b\"}\n");
  EXPECT_THAT(error_of(path, {.max_line_bytes = 1 << 20}), HasSubstr("line 1: longer than 1048576 bytes"));
  EXPECT_EQ(read(path, {.max_line_bytes = 1 << 20, .max_skipped = 1}).size(), 1u);
}

TEST_F(Documents, CutOrDamagedCompressionIsNoticedWhateverMayBeSkipped) {
  const std::string lines = many_lines(200);
  for (const auto& [name, packed] : {std::pair{"a.jsonl.zst", zstd(lines)}, std::pair{"a.jsonl.gz", gzip(lines)}}) {
    for (const size_t cut : {size_t{1}, size_t{9}, packed.size() / 2}) {
      EXPECT_THAT(error_of(write(name, packed.substr(0, packed.size() - cut)), {.max_skipped = 1000}),
                  ContainsRegex("cut short, in line [0-9]+; fetch or copy it again"))
          << name << cut;
    }
    std::string damaged = packed;
    for (size_t i = 20; i < 40; ++i) damaged[i] = static_cast<char>(damaged[i] ^ 0x55);
    EXPECT_THAT(error_of(write(name, damaged), {.max_skipped = 1000}), HasSubstr(name));
    EXPECT_THAT(error_of(write(name, "")), HasSubstr("the content is not"));
  }
}

// What follows is not even looked at: it may be terabytes, of some megabytes in the file.
TEST_F(Documents, ALineThatUnpacksBeyondTheLimitIsRefusedBeforeItsEnd) {
  const std::string packed = gzip("{\"text\": \"x\"}\n" + std::string(8 << 20, ' '));
  const auto path = write("a.jsonl.gz", packed.substr(0, packed.size() - 1));
  EXPECT_THAT(error_of(path, {.max_line_bytes = 1 << 20}), HasSubstr("line 2: longer than 1048576 bytes"));
  EXPECT_THAT(error_of(path, {.max_line_bytes = 1 << 20, .max_skipped = 1}), HasSubstr("cut short, in line 2"));
}

TEST_F(Documents, FoldersAreReadInOrderWithoutHiddenFiles) {
  write("corpus/b.txt", "second");
  write("corpus/a/z.md",
        "\xef\xbb\xbf"
        "first");
  write("corpus/c.jsonl", "{\"text\": \"third\"}\n");
  write("corpus/.hidden", "no");
  write("corpus/.git/config", "no");
  const auto documents = read(folder_ / "corpus");
  ASSERT_EQ(documents.size(), 3u);
  EXPECT_EQ(documents[0].text, "first");
  EXPECT_EQ(documents[1].text, "second");
  EXPECT_EQ(documents[2].text, "third");
  std::filesystem::create_directories(folder_ / "empty");
  EXPECT_THAT(error_of(folder_ / "empty"), HasSubstr("without files"));
  EXPECT_THAT(error_of(folder_ / "nowhere"), HasSubstr("no such file"));
}

TEST_F(Documents, WhatIsNoPlainTextIsRefusedWithAHint) {
  EXPECT_THAT(error_of(write("a.txt", "%PDF-1.7 x")), HasSubstr("pdftotext"));
  EXPECT_THAT(error_of(write("a.txt", "\n<!DOCTYPE HTML><p>")), HasSubstr("HTML"));
  EXPECT_THAT(error_of(write("a.txt", std::string("ab\0c", 4))), HasSubstr("binary"));
  EXPECT_THAT(error_of(write("a.txt",
                             "\xff\xfe"
                             "a")),
              HasSubstr("UTF-16"));
  EXPECT_THAT(error_of(write("a.txt", std::string("\xff\xfe\0\0a\0\0\0", 8))), HasSubstr("UTF-32"));
  EXPECT_THAT(error_of(write("a.txt", std::string("\0\0\xfe\xff\0\0\0a", 8))), HasSubstr("UTF-32"));
  EXPECT_THAT(error_of(write("a.rtf", "{\\rtf1\\ansi text}")), HasSubstr("RTF"));
  EXPECT_THAT(error_of(write("a.ps", "%!PS-Adobe-3.0\n(text) show\n")), HasSubstr("PostScript"));
  EXPECT_THAT(error_of(write("a.txt", gzip("text"))), HasSubstr("compressed"));
  EXPECT_THAT(error_of(write("a.docx", "PK\x03\x04...")), HasSubstr("office document"));
  EXPECT_THAT(error_of(write("a.txt", "one\ntwo \xe9t\xe9\n")), HasSubstr("a.txt, line 2: not UTF-8"));
  EXPECT_EQ(read(write("a.txt", "a < b, <b>bold</b>"))[0].text, "a < b, <b>bold</b>");
}

}  // namespace
}  // namespace cepe::data
