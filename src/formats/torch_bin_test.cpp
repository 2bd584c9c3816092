#include "formats/torch_bin.h"

#include <gtest/gtest.h>

#include "expect_error.h"
#include "file_bytes.h"

namespace cepe::formats {
namespace {

using base::ErrorCode;
using test::FileBytes;
using test::ZipPart;
using namespace std::string_literals;

std::string text(const std::string& content) {
  return "X" + std::string(1, static_cast<char>(content.size())) + "\0\0\0"s + content;
}
std::string number(int64_t value) {
  return "\x8a\x08" + std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}
std::string tuple(const std::vector<int64_t>& values) {
  std::string bytes = "(";
  for (const int64_t value : values) bytes += number(value);
  return bytes + "t";
}
std::string storage(int64_t count, const std::string& type = "FloatStorage", const std::string& key = "0") {
  return "(" + text("storage") + "ctorch\n" + type + "\n" + text(key) + text("cpu") + number(count) + "tQ";
}
// Pickled _rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())
std::string pickled_tensor(const std::string& stored, int64_t offset, const std::vector<int64_t>& size,
                           const std::vector<int64_t>& stride) {
  return "ctorch._utils\n_rebuild_tensor_v2\n(" + stored + number(offset) + tuple(size) + tuple(stride) +
         "\x89"
         "ccollections\nOrderedDict\n)RtR";
}
std::string mapping(const std::string& items) { return "\x80\x02}(" + items + "u."; }
std::string just(const std::string& value) { return mapping(text("w") + value); }

std::vector<float> values_of(const ParsedFile& parsed, const std::string& name) {
  for (const NamedTensor& found : parsed.tensors) {
    if (found.name != name) continue;
    std::vector<float> values(static_cast<size_t>(element_count(found.view)));
    to_float(found.view, values);
    return values;
  }
  ADD_FAILURE() << "no tensor " << name;
  return {};
}

TEST(TorchBin, ContiguousTensorsAreViewsAndStridedOnesAreCopied) {
  const FileBytes file = test::torch_bytes(mapping(text("whole") + pickled_tensor(storage(4), 0, {2, 2}, {2, 1}) +  //
                                                   text("transposed") + pickled_tensor(storage(4), 0, {2, 2}, {1, 2}) +
                                                   text("last") + pickled_tensor(storage(4), 3, {1, 1}, {77, 9}) +
                                                   text("spread") + pickled_tensor(storage(4), 1, {3, 2}, {0, 2})));
  const ParsedFile parsed = parse_torch_bin(file.span(), "x");
  EXPECT_EQ(values_of(parsed, "whole"), (std::vector<float>{0, 1, 2, 3}));
  EXPECT_EQ(values_of(parsed, "transposed"), (std::vector<float>{0, 2, 1, 3}));
  EXPECT_EQ(values_of(parsed, "last"), (std::vector<float>{3}));
  EXPECT_EQ(values_of(parsed, "spread"), (std::vector<float>{1, 3, 1, 3, 1, 3}));
  EXPECT_EQ(parsed.held.size(), 2u);
}

TEST(TorchBin, CompressedStoragesAreUnpackedOnce) {
  const std::string pickle = mapping(text("a") + pickled_tensor(storage(4), 0, {4}, {1}) + text("b") +
                                     pickled_tensor(storage(4), 1, {2}, {1}));
  const FileBytes file =
      test::zip_bytes({ZipPart::deflated("data.pkl", pickle), ZipPart::deflated("data/0", std::string(16, '\0'))});
  const ParsedFile parsed = parse_torch_bin(file.span(), "x");
  EXPECT_EQ(values_of(parsed, "b"), (std::vector<float>{0, 0}));
  EXPECT_EQ(parsed.held.size(), 1u);
}

TEST(TorchBin, HostileTensorsAreRefusedByNameOfFileAndTensor) {
  const auto corrupt = ErrorCode::corrupt;
  const std::string good = pickled_tensor(storage(4), 0, {4}, {1});
  constexpr int64_t most = INT64_MAX;
  const struct {
    const char* promise;
    std::string pickle;
    ErrorCode code;
    const char* says;
  } table[] = {
      {"a storage that is missing", just(pickled_tensor(storage(4, "FloatStorage", "../0"), 0, {4}, {1})), corrupt,
       "'w': its storage, zip entry '../0', is missing"},
      {"a storage that is too small", just(pickled_tensor(storage(5), 0, {4}, {1})), corrupt,
       "has 16 bytes; expected 5 elements"},
      {"a storage of another width", just(pickled_tensor(storage(4, "DoubleStorage"), 0, {4}, {1})), corrupt,
       "4 elements of 8"},
      {"a class that is no storage", just(pickled_tensor(storage(4, "Size"), 0, {4}, {1})), corrupt,
       "no class of storages"},
      {"a negative storage size", just(pickled_tensor(storage(-4), 0, {4}, {1})), corrupt, "storage sizes"},
      {"a negative offset", just(pickled_tensor(storage(4), -1, {4}, {1})), corrupt, "'w': storage offsets"},
      {"a negative size", just(pickled_tensor(storage(4), 0, {-4}, {1})), corrupt, "'w': sizes"},
      {"a negative stride", just(pickled_tensor(storage(4), 3, {4}, {-1})), corrupt, "'w': strides"},
      {"elements beyond the storage", just(pickled_tensor(storage(4), 1, {4}, {1})), corrupt,
       "'w': sizes [4], strides [1]"},
      {"strides that overflow", just(pickled_tensor(storage(4), 0, {3, 3}, {most, most})), corrupt, "reach beyond"},
      {"an offset that overflows", just(pickled_tensor(storage(4), most, {1}, {1})), corrupt, "reach beyond"},
      {"sizes that overflow", just(pickled_tensor(storage(4), 0, {most, most}, {0, 0})), corrupt, "reach beyond"},
      {"a bomb of stride 0", just(pickled_tensor(storage(4), 0, {int64_t{1} << 40}, {0})), ErrorCode::unsupported,
       "'w': compressed or strided to more than"},
      {"sizes and strides that differ", just(pickled_tensor(storage(4), 0, {2, 2}, {1})), corrupt, "differ in number"},
      {"too many dimensions",
       just(pickled_tensor(storage(4), 0, std::vector<int64_t>(17, 1), std::vector<int64_t>(17, 1))), corrupt,
       "at most 16"},
      {"a tensor of two parts", just("ctorch._utils\n_rebuild_tensor_v2\n" + tuple({1, 2}) + "R"), corrupt,
       "four parts"},
      {"a parameter of nothing", just("ctorch._utils\n_rebuild_parameter\n)R"), corrupt, "'w'"},
      {"a parameter of itself",  // p = _rebuild_parameter([p]) cannot be pickled; a list in its place can
       just("ctorch._utils\n_rebuild_parameter\n]q\0h\0a\x85R"s), corrupt, "does not hold a tensor"},
      {"a storage that is a number", just(pickled_tensor(number(3), 0, {4}, {1})), corrupt, "its storage is not given"},
      {"a name twice", mapping(text("w") + good + text("w") + good), corrupt, "'w': occurs twice"},
      {"a name that is a number", mapping(number(3) + good), corrupt, "name of tensor 0 is no UTF-8 text"},
      {"a name that is not UTF-8", mapping(text("\xff") + good), corrupt, "name of tensor 0 is no UTF-8 text"},
      {"a tensor without a name", "\x80\x02" + good + ".", ErrorCode::unsupported, "no mapping"},
      {"a dict that holds itself", "}q\0"s + text("state_dict") + "h\0s."s, ErrorCode::unsupported, "holds no tensor"},
      {"a foreign class", just("c__torch__\nModel\n)R"), ErrorCode::unsupported, "refers to '__torch__.Model'"},
  };
  for (const auto& bad : table) {
    SCOPED_TRACE(bad.promise);
    const FileBytes file = test::torch_bytes(bad.pickle);
    test::expect_error(bad.code, bad.says, [&] { parse_torch_bin(file.span(), "file.x"); });
    test::expect_error(bad.code, "file.x", [&] { parse_torch_bin(file.span(), "file.x"); });
  }
}

TEST(TorchBin, OtherArchivesAreRefusedByName) {
  const std::string pickle = just(pickled_tensor(storage(4), 0, {4}, {1}));
  const ZipPart data = ZipPart::plain("m/data.pkl", pickle);
  const struct {
    const char* promise;
    FileBytes file;
    const char* says;
  } table[] = {
      {"a bare pickle", FileBytes("\x80\x02\x8a\x0a"), "before version 1.6"},
      {"a zip of something else", test::zip_bytes({ZipPart::plain("a", "b")}), "0 entries data.pkl"},
      {"two pickles", test::zip_bytes({data, ZipPart::plain("n/data.pkl", pickle)}), "2 entries data.pkl"},
      {"big-endian", test::zip_bytes({data, ZipPart::plain("m/byteorder", "big")}), "byte order 'big'"},
  };
  for (const auto& bad : table) {
    SCOPED_TRACE(bad.promise);
    test::expect_error(ErrorCode::unsupported, bad.says, [&] { parse_torch_bin(bad.file.span(), "file.x"); });
  }
}

TEST(TorchBin, EveryTruncationIsRefusedWithWhatToDo) {
  const FileBytes file = test::torch_bytes(just(pickled_tensor(storage(4), 0, {4}, {1})));
  for (size_t size = 0; size < file.size(); ++size) {
    test::expect_error(base::ErrorCode::corrupt, "fetch or copy it again",
                       [&] { parse_torch_bin(file.span().first(size), "x"); });
  }
  EXPECT_NO_THROW(parse_torch_bin(file.span(), "x"));
}

}  // namespace
}  // namespace cepe::formats
