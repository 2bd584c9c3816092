#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <functional>

#include "expect_error.h"
#include "file_bytes.h"

namespace cepe::formats {
namespace {

using base::ErrorCode;
using test::FileBytes;

enum : uint32_t { type_uint8 = 0, type_uint16 = 2, type_uint32 = 4, type_bool = 7, type_string = 8, type_array = 9 };

FileBytes head(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
  return FileBytes("GGUF").value(version).value(tensors).value(keys);
}

FileBytes& append_tensor(FileBytes& file, std::string_view name, const std::vector<uint64_t>& sizes, uint32_t type,
                         uint64_t offset) {
  file.sized(name).value(static_cast<uint32_t>(sizes.size()));
  for (const uint64_t size : sizes) file.value(size);
  return file.value(type).value(offset);
}

// Pads to the alignment and adds the data.
FileBytes with_data(FileBytes file, size_t bytes, size_t alignment = 32) {
  file.zeros((alignment - file.size() % alignment) % alignment);
  return file.zeros(bytes);
}

FileBytes one_tensor(const std::vector<uint64_t>& sizes, uint32_t type, uint64_t offset, size_t bytes) {
  FileBytes file = head(1, 0);
  return with_data(append_tensor(file, "w", sizes, type, offset), bytes);
}

TEST(Gguf, BothVersionsAreReadAndShapesReversed) {
  for (const uint32_t version : {2u, 3u}) {
    FileBytes file = head(2, 1, version);
    file.sized("general.alignment").value<uint32_t>(type_uint32).value<uint32_t>(8);
    append_tensor(file, "b", {5, 3}, 0, 0);
    const FileBytes whole = with_data(append_tensor(file, "a", {64, 2}, 3, 64), 64 + 80, 8);
    const ParsedFile parsed = parse_gguf(whole.span(), "x");
    ASSERT_EQ(parsed.tensors.size(), 2u);
    EXPECT_EQ(parsed.tensors[0].view.shape, (std::vector<int64_t>{3, 5}));
    EXPECT_EQ(parsed.tensors[1].view.type, DType::q4_1);
    EXPECT_EQ(parsed.tensors[1].view.shape, (std::vector<int64_t>{2, 64}));
    EXPECT_EQ(parsed.tensors[1].view.bytes.data(), whole.span().data() + whole.size() - 80);
    EXPECT_EQ(parsed.metadata.at("general.alignment"), 8);
  }
}

TEST(Gguf, AFileWithoutTensorsMayEndBeforeThePadding) {
  FileBytes file = head(0, 1);
  file.sized("k").value<uint32_t>(type_string).sized("v");
  EXPECT_EQ(parse_gguf(file.span(), "x").metadata.at("k"), "v");
}

struct HostileGguf {
  const char* promise;
  FileBytes file;
  ErrorCode code;
  const char* says;
};

FileBytes with_key(std::string_view key, const std::function<void(FileBytes&)>& value) {
  FileBytes file = head(0, 1);
  file.sized(key);
  value(file);
  return file.zeros(64);
}

FileBytes nested_arrays(int depth) {
  return with_key("k", [&](FileBytes& file) {
    file.value<uint32_t>(type_array);
    for (int i = 0; i < depth; ++i) file.value<uint32_t>(type_array).value<uint64_t>(1);
    file.value<uint32_t>(type_uint8).value<uint64_t>(0);
  });
}

std::vector<HostileGguf> hostile_heads() {
  const auto corrupt = ErrorCode::corrupt;
  const auto unsupported = ErrorCode::unsupported;
  return {
      {"an empty file", FileBytes(), corrupt, "magic number"},
      {"another magic number", FileBytes("GGML").zeros(40), corrupt, "'GGUF'"},
      {"version 1", head(0, 0, 1), unsupported, "GGUF version 1"},
      {"big-endian", head(0, 0, 0x03000000), unsupported, "big-endian"},
      {"2^64 - 1 tensors", head(~uint64_t{0}, 0), corrupt, "tensors do not fit"},
      {"2^63 keys", head(0, uint64_t{1} << 63), corrupt, "metadata keys do not fit"},
      {"a key beyond the file", head(0, 1).value<uint64_t>(1000).zeros(50), corrupt, "a metadata key"},
      {"a key of 2^40 bytes", head(0, 1).value<uint64_t>(uint64_t{1} << 40).zeros(50), corrupt, "at most 65535"},
      {"a key that is not UTF-8", with_key("\xc0\xaf", [](FileBytes& f) { f.value<uint32_t>(0); }), corrupt,
       "not UTF-8"},
      {"an unknown value type", with_key("k", [](FileBytes& f) { f.value<uint32_t>(13); }), corrupt,
       "'k' has the unknown"},
      {"a boolean of 2", with_key("k", [](FileBytes& f) { f.value<uint32_t>(type_bool).text("\2"); }), corrupt,
       "0 or 1"},
      {"a string beyond the file",
       with_key("k", [](FileBytes& f) { f.value<uint32_t>(type_string).value(~uint64_t{0}); }), corrupt,
       "ends inside metadata 'k'"},
      {"an array of 2^60 elements",
       with_key("k", [](FileBytes& f) { f.value<uint32_t>(type_array).value<uint32_t>(0).value(uint64_t{1} << 60); }),
       corrupt, "'k': an array of 1152921504606846976"},
      {"arrays in arrays without end", nested_arrays(5), corrupt, "nested deeper"},
      {"a key twice",
       head(0, 2).sized("k").value<uint32_t>(0).text("\1").sized("k").value<uint32_t>(0).text("\1").zeros(9), corrupt,
       "'k' occurs twice"},
      {"an alignment of zero",
       with_key("general.alignment", [](FileBytes& f) { f.value<uint32_t>(type_uint32).value<uint32_t>(0); }), corrupt,
       "general.alignment"},
      {"an alignment of 24",
       with_key("general.alignment", [](FileBytes& f) { f.value<uint32_t>(type_uint32).value<uint32_t>(24); }), corrupt,
       "power of two"},
      {"a part of a split model",
       with_key("split.count", [](FileBytes& f) { f.value<uint32_t>(type_uint16).value<uint16_t>(3); }), unsupported,
       "one of 3 files of a split model"},
  };
}

std::vector<HostileGguf> hostile_tensors() {
  const auto corrupt = ErrorCode::corrupt;
  const uint64_t big = uint64_t{1} << 32;
  FileBytes twice = head(2, 0);
  append_tensor(append_tensor(twice, "w", {1}, 0, 0), "w", {1}, 0, 32);
  FileBytes overlap = head(2, 0);
  append_tensor(append_tensor(overlap, "v", {16}, 0, 0), "w", {8}, 0, 32);
  FileBytes not_utf8 = head(1, 0);
  append_tensor(not_utf8, "\xff", {1}, 0, 0);
  return {
      {"five dimensions", one_tensor({1, 1, 1, 1, 1}, 0, 0, 4), corrupt, "'w' has 5 dimensions"},
      {"a size of 2^63", one_tensor({uint64_t{1} << 63}, 0, 0, 4), corrupt, "'w' has a size"},
      {"a shape that overflows", one_tensor({big, big, 4}, 0, 0, 4), corrupt,
       "'w': float32 [4, 4294967296, 4294967296]"},
      {"bytes that overflow", one_tensor({uint64_t{1} << 62}, 0, 0, 4), corrupt, "no possible shape"},
      {"half a block", one_tensor({48}, 2, 0, 64), corrupt, "whole blocks of 32"},
      {"half a super-block", one_tensor({128}, 12, 0, 144), corrupt, "whole blocks of 256"},
      {"a type that is not read", one_tensor({256}, 17, 0, 74), ErrorCode::unsupported, "'w' has the type IQ2_XS"},
      {"a type that does not exist", one_tensor({256}, 4000, 0, 74), ErrorCode::unsupported, "number 4000"},
      {"an offset off the alignment", one_tensor({1}, 0, 4, 36), corrupt, "no multiple of the alignment 32"},
      {"data beyond the file", one_tensor({9}, 0, 0, 32), corrupt, "'w': 36 bytes at offset 0 lie outside"},
      {"an offset near 2^64", one_tensor({1}, 0, ~uint64_t{31}, 32), corrupt, "lie outside"},
      {"a name twice", with_data(twice, 64), corrupt, "'w' occurs twice"},
      {"an overlap", with_data(overlap, 64), corrupt, "'w' overlaps tensor 'v'"},
      {"a name that is not UTF-8", with_data(not_utf8, 4), corrupt, "is not UTF-8"},
  };
}

void expect_all_refused(const std::vector<HostileGguf>& table) {
  for (const HostileGguf& bad : table) {
    SCOPED_TRACE(bad.promise);
    test::expect_error(bad.code, bad.says, [&] { parse_gguf(bad.file.span(), "file.x"); });
    test::expect_error(bad.code, "file.x: ", [&] { parse_gguf(bad.file.span(), "file.x"); });
  }
}

TEST(Gguf, HostileMetadataIsRefusedByNameOfFileAndKey) { expect_all_refused(hostile_heads()); }
TEST(Gguf, HostileTensorsAreRefusedByNameOfFileAndTensor) { expect_all_refused(hostile_tensors()); }

TEST(Gguf, EveryTruncationIsRefusedWithWhatToDo) {
  const FileBytes file = one_tensor({3}, 0, 0, 12);
  for (size_t size = 0; size < file.size(); ++size) {
    test::expect_error(base::ErrorCode::corrupt, "fetch or copy it again",
                       [&] { parse_gguf(file.span().first(size), "x"); });
  }
  EXPECT_NO_THROW(parse_gguf(file.span(), "x"));
}

TEST(Gguf, MetadataBeyondTheLimitIsRefusedWithoutFillingMemory) {
  const size_t count = (size_t{1} << 24) + 1;
  FileBytes file = head(0, 1);
  file.sized("k").value<uint32_t>(type_array).value<uint32_t>(type_uint8).value<uint64_t>(count).zeros(count);
  test::expect_error(ErrorCode::corrupt, "more than 16777216 metadata values", [&] { parse_gguf(file.span(), "x"); });
}

}  // namespace
}  // namespace cepe::formats
