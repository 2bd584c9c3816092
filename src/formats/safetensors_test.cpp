#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include "expect_error.h"
#include "file_bytes.h"
#include "formats/dtype.h"

namespace cepe::formats {
namespace {

using base::ErrorCode;
using test::FileBytes;
using test::safetensors_bytes;

TEST(Safetensors, TensorsAndMetadataAreRead) {
  const FileBytes file = safetensors_bytes(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[],"data_offsets":[4,8]},)"
      R"("a":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]},"none":{"dtype":"I64","shape":[0,9],"data_offsets":[8,8]}}  )",
      8);
  const ParsedFile parsed = parse_safetensors(file.span(), "x");
  EXPECT_EQ(parsed.metadata.dump(), R"({"format":"pt"})");
  ASSERT_EQ(parsed.tensors.size(), 3u);
  const TensorView& a = parsed.tensors[0].view;
  EXPECT_EQ(parsed.tensors[0].name, "a");
  EXPECT_EQ(a.type, DType::bfloat16);
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(a.bytes.data(), file.span().data() + file.size() - 8);
  EXPECT_EQ(element_count(parsed.tensors[1].view), 1);
  EXPECT_EQ(element_count(parsed.tensors[2].view), 0);
}

struct HostileSafetensors {
  const char* promise;
  FileBytes file;
  ErrorCode code;
  const char* says;
};

std::string entry(const char* name, const char* dtype, const char* shape, const char* offsets) {
  return std::string("\"") + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" +
         offsets + "}";
}

FileBytes one(const char* dtype, const char* shape, const char* offsets, size_t bytes) {
  return safetensors_bytes("{" + entry("w", dtype, shape, offsets) + "}", bytes);
}

std::vector<HostileSafetensors> hostile() {
  const auto corrupt = ErrorCode::corrupt;
  const std::string good = entry("w", "F32", "[1]", "[0,4]");
  return {
      {"an empty file", FileBytes(), corrupt, "header's length"},
      {"seven bytes", FileBytes("1234567"), corrupt, "header's length"},
      {"a header beyond the file", FileBytes().value<uint64_t>(50).text("{}"), corrupt, "ends inside the header"},
      {"a header of 2^64 - 1 bytes", FileBytes().value(~uint64_t{0}).text("{}"), corrupt, "at most 100000000"},
      {"no JSON", safetensors_bytes("{\"w\":", 0), corrupt, "not valid JSON"},
      {"a list as header", safetensors_bytes("[]", 0), corrupt, "must be a JSON object"},
      {"deep nesting", safetensors_bytes(std::string(100000, '['), 0), corrupt, "nested deeper"},
      {"a name twice", safetensors_bytes("{" + good + "," + good + "}", 4), corrupt, "'w' occurs twice"},
      {"a name that is not UTF-8", safetensors_bytes("{\"\xff\":{}}", 0), corrupt, "not valid JSON"},
      {"metadata that is no object", safetensors_bytes(R"({"__metadata__":3})", 0), corrupt, "__metadata__"},
      {"metadata that is no text", safetensors_bytes(R"({"__metadata__":{"k":3}})", 0), corrupt,
       "'k' must be a string"},
      {"an entry that is no object", safetensors_bytes(R"({"w":3})", 0), corrupt, "tensor 'w'"},
      {"no type", safetensors_bytes(R"({"w":{}})", 0), corrupt, "'dtype'"},
      {"no shape", safetensors_bytes(R"({"w":{"dtype":"F32"}})", 0), corrupt, "'shape'"},
      {"an unknown type", one("F8_E4M3", "[4]", "[0,4]", 4), ErrorCode::unsupported, "'F8_E4M3'"},
      {"a negative size", one("F32", "[-1]", "[0,4]", 4), corrupt, "shape"},
      {"a fraction as size", one("F32", "[1.5]", "[0,4]", 4), corrupt, "shape"},
      {"a shape that overflows", one("F32", "[4294967296,4294967296,4]", "[0,4]", 4), corrupt, "does not fit its 4"},
      {"bytes that overflow", one("F64", "[2305843009213693952]", "[0,0]", 0), corrupt, "does not fit its 0"},
      {"a size of 2^64", one("F32", "[18446744073709551616]", "[0,4]", 4), corrupt, "shape"},
      {"too few bytes for the shape", one("F32", "[2]", "[0,4]", 4), corrupt, "does not fit its 4"},
      {"one offset", one("F32", "[1]", "[0]", 4), corrupt, "[begin, end]"},
      {"offsets beyond the data", one("F32", "[1]", "[0,4]", 3), corrupt, "outside the 3 bytes"},
      {"offsets turned round", one("F32", "[1]", "[4,0]", 4), corrupt, "outside the 4 bytes"},
      {"negative offsets", one("F32", "[1]", "[-4,0]", 4), corrupt, "data_offsets"},
      {"bytes left over", one("F32", "[1]", "[0,4]", 5), corrupt, "end at byte 4"},
      {"a hole", one("F32", "[1]", "[4,8]", 8), corrupt, "(hole)"},
      {"an overlap", safetensors_bytes("{" + good + "," + entry("v", "F32", "[1]", "[2,6]") + "}", 6), corrupt,
       "(overlap)"},
      {"two tensors on the same bytes",
       safetensors_bytes("{" + good + "," + entry("v", "F32", "[1]", "[0,4]") + "}", 4), corrupt, "(overlap)"},
  };
}

TEST(Safetensors, HostileFilesAreRefusedByNameOfFileAndField) {
  for (const HostileSafetensors& bad : hostile()) {
    SCOPED_TRACE(bad.promise);
    test::expect_error(bad.code, bad.says, [&] { parse_safetensors(bad.file.span(), "file.x"); });
    test::expect_error(bad.code, "file.x", [&] { parse_safetensors(bad.file.span(), "file.x"); });
  }
}

TEST(Safetensors, EveryTruncationIsRefusedWithWhatToDo) {
  const FileBytes file = one("F32", "[3]", "[0,12]", 12);
  for (size_t size = 0; size < file.size(); ++size) {
    test::expect_error(base::ErrorCode::corrupt, "fetch or copy it again",
                       [&] { parse_safetensors(file.span().first(size), "x"); });
  }
  EXPECT_NO_THROW(parse_safetensors(file.span(), "x"));
}

TEST(DTypeSizes, NothingOverflowsAndBlocksAreWhole) {
  EXPECT_EQ(checked_bytes(DType::q4_1, std::vector<int64_t>{3, 64}), 3 * 2 * 20);
  EXPECT_EQ(checked_bytes(DType::q6_k, std::vector<int64_t>{2, 256}), 420);
  EXPECT_EQ(checked_bytes(DType::q4_1, std::vector<int64_t>{64, 3}), std::nullopt);
  EXPECT_EQ(checked_bytes(DType::q4_1, std::vector<int64_t>{}), std::nullopt);
  EXPECT_EQ(checked_bytes(DType::float32, std::vector<int64_t>{}), 4);
  EXPECT_EQ(checked_bytes(DType::float32, std::vector<int64_t>{int64_t{1} << 62}), std::nullopt);
  EXPECT_EQ(checked_count(std::vector<int64_t>{-1, 0}), std::nullopt);
}

}  // namespace
}  // namespace cepe::formats
