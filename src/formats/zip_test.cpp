#include "formats/zip.h"

#include <gtest/gtest.h>

#include "expect_error.h"
#include "file_bytes.h"

namespace cepe::formats {
namespace {

using base::ErrorCode;
using test::FileBytes;
using test::ZipPart;

std::string contents(const ZipEntry& entry) {
  return {reinterpret_cast<const char*>(unpack(entry, "x").get()), entry.size};
}

TEST(Zip, StoredAndDeflatedEntriesAreReadWithAndWithoutZip64) {
  for (const bool zip64 : {false, true}) {
    const FileBytes file =
        test::zip_bytes({ZipPart::plain("a", "one"), ZipPart::deflated("b", std::string(5000, 'z'))}, zip64);
    const auto entries = read_zip(file.span(), "x");
    ASSERT_EQ(entries.size(), 2u);
    EXPECT_EQ(entries[0].name, "a");
    EXPECT_EQ(contents(entries[0]), "one");
    EXPECT_TRUE(entries[1].deflated);
    EXPECT_EQ(contents(entries[1]), std::string(5000, 'z'));
  }
}

TEST(Zip, ACommentAfterTheEndIsAllowed) {
  std::string file = test::zip_bytes({ZipPart::plain("a", "one")}).string();
  file[file.size() - 2] = 5;
  file += "hello";
  EXPECT_EQ(read_zip(FileBytes(file).span(), "x").size(), 1u);
}

ZipPart changed(ZipPart part, uint64_t size, uint16_t method, uint16_t flags) {
  part.size = size;
  part.method = method;
  part.flags = flags;
  return part;
}

std::string with_bytes(std::string file, size_t at, std::string_view bytes) {
  return file.replace(at, bytes.size(), bytes);
}

TEST(Zip, HostileArchivesAreRefusedByNameOfFileAndEntry) {
  const ZipPart plain = ZipPart::plain("a", "one");
  const ZipPart packed = ZipPart::deflated("a", std::string(5000, 'z'));
  const std::string good = test::zip_bytes({plain}).string();
  const std::string good64 = test::zip_bytes({plain}, true).string();
  const size_t central = good.size() - 22 - 47;
  struct {
    const char* promise;
    std::string file;
    ErrorCode code;
    const char* says;
  } const table[] = {
      {"an empty file", "", ErrorCode::corrupt, "no zip end record"},
      {"a truncated file", good.substr(0, good.size() - 1), ErrorCode::corrupt, "no zip end record"},
      {"a name twice", test::zip_bytes({plain, plain}).string(), ErrorCode::corrupt, "'a' occurs twice"},
      {"encryption", test::zip_bytes({changed(plain, 3, 0, 1)}).string(), ErrorCode::unsupported, "'a': encrypted"},
      {"another method", test::zip_bytes({changed(plain, 3, 12, 0)}).string(), ErrorCode::unsupported, "method 12"},
      {"two sizes", test::zip_bytes({changed(plain, 4, 0, 0)}).string(), ErrorCode::corrupt,
       "two sizes differ: 4 and 3"},
      {"a bomb by its sizes", test::zip_bytes({changed(packed, 4000000000u, 8, 0)}).string(), ErrorCode::corrupt,
       "cannot unpack to 4000000000"},
      {"more entries than bytes", with_bytes(good, good.size() - 12, "\xf0\xff"), ErrorCode::corrupt, "does not fit"},
      {"a directory beyond the file", with_bytes(good, good.size() - 6, "\xf0\xff\xff\x7f"), ErrorCode::corrupt,
       "central directory at byte"},
      {"an entry beyond the file", with_bytes(good, central + 42, "\xf0\xff\xff\x7f"), ErrorCode::corrupt,
       "'a': its header"},
      {"a zip64 locator that lies", with_bytes(good64, good64.size() - 22 - 12, "\xff\xff\xff\xff\xff\xff\xff\xff"),
       ErrorCode::corrupt, "zip64 end record at byte 18446744073709551615"},
  };
  for (const auto& bad : table) {
    SCOPED_TRACE(bad.promise);
    test::expect_error(bad.code, bad.says, [&] { read_zip(FileBytes(bad.file).span(), "file.x"); });
    test::expect_error(bad.code, "file.x", [&] { read_zip(FileBytes(bad.file).span(), "file.x"); });
  }
}

// Two directory records of different names over one local entry: how a small archive unpacks to a huge one.
TEST(Zip, EntriesThatShareBytesAreRefused) {
  std::string file = test::zip_bytes({ZipPart::plain("a", "one"), ZipPart::plain("b", "two")}).string();
  const size_t second = file.size() - 22 - 47;
  file = with_bytes(file, second + 42, std::string_view("\0\0\0\0", 4));
  test::expect_error(ErrorCode::corrupt, "'a' and 'b' share bytes", [&] { read_zip(FileBytes(file).span(), "x"); });
}

TEST(Zip, ContentsOfAnotherSizeOrChecksumAreRefused) {
  const ZipPart packed = ZipPart::deflated("a", std::string(5000, 'z'));
  for (const uint64_t size : {uint64_t{4999}, uint64_t{5001}}) {
    const FileBytes file = test::zip_bytes({changed(packed, size, 8, 0)});
    const auto entries = read_zip(file.span(), "x");
    test::expect_error(ErrorCode::corrupt, "'a': its compressed contents", [&] { unpack(entries[0], "x"); });
  }
  ZipPart wrong = ZipPart::plain("a", "one");
  wrong.checksum ^= 1;
  const FileBytes file = test::zip_bytes({wrong});
  const auto entries = read_zip(file.span(), "x");
  test::expect_error(ErrorCode::corrupt, "'a': its checksum", [&] { unpack(entries[0], "x"); });
}

}  // namespace
}  // namespace cepe::formats
