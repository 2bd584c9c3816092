#include "formats/pickle.h"

#include <gtest/gtest.h>

#include <array>

#include "expect_error.h"
#include "file_bytes.h"

namespace cepe::formats {
namespace {

using base::ErrorCode;
using Kind = PickleValue::Kind;
using namespace std::string_literals;

constexpr std::array<std::string_view, 2> allowed{"collections OrderedDict", "torch FloatStorage"};

Pickle read(const std::string& bytes) {
  // Leaked to the end of the test program: texts are views into the bytes.
  static std::vector<std::unique_ptr<std::string>> kept;
  kept.push_back(std::make_unique<std::string>(bytes));
  return read_pickle(std::as_bytes(std::span(kept.back()->data(), kept.back()->size())), allowed, "x");
}

TEST(Pickle, NumbersOfEveryLengthAreRead) {
  const struct {
    std::string bytes;
    int64_t value;
  } table[] = {
      {"K\xff."s, 255},
      {"M\x01\x02."s, 513},
      {"J\xfe\xff\xff\xff."s, -2},
      {"\x8a\x00."s, 0},
      {"\x8a\x01\xff."s, -1},
      {"\x8a\x05\x00\x00\x00\x00\x01."s, int64_t{1} << 32},
      {"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80."s, INT64_MIN},
  };
  for (const auto& [bytes, value] : table) {
    const Pickle pickle = read("\x80\x02" + bytes);
    EXPECT_EQ(pickle.values[pickle.root].kind, Kind::integer);
    EXPECT_EQ(pickle.values[pickle.root].number, value);
  }
}

TEST(Pickle, AnOrderedDictIsAMappingWhicheverOpcodesBuildIt) {
  // OrderedDict(); d['a'] = None; state set by BUILD
  for (const std::string& bytes : {"ccollections\nOrderedDict\n)Rq\0X\1\0\0\0aNs}b."s,
                                   "\x8c\x0b"
                                   "collections\x8c\x0bOrderedDict\x93)R\x94(\x8c\x01"
                                   "aNu."s}) {
    const Pickle pickle = read(bytes);
    const PickleValue& root = pickle.values[pickle.root];
    ASSERT_EQ(root.kind, Kind::mapping);
    ASSERT_EQ(root.items.size(), 2u);
    EXPECT_EQ(pickle.values[root.items[0]].text, "a");
    EXPECT_EQ(pickle.values[root.items[1]].kind, Kind::none);
  }
}

TEST(Pickle, ACallStaysAValue) {
  const Pickle pickle = read("ctorch\nFloatStorage\n)R."s);
  EXPECT_EQ(pickle.values[pickle.root].kind, Kind::call);
}

TEST(Pickle, AListThatHoldsItselfIsJustAValue) {
  const Pickle pickle = read("]q\0h\0a."s);
  EXPECT_EQ(pickle.values[pickle.root].items, std::vector<uint32_t>{pickle.root});
}

TEST(Pickle, HostilePicklesAreRefused) {
  const auto corrupt = ErrorCode::corrupt;
  const auto unsupported = ErrorCode::unsupported;
  const struct {
    const char* promise;
    std::string bytes;
    ErrorCode code;
    const char* says;
  } table[] = {
      {"nothing", "", corrupt, "ends inside the pickle"},
      {"no STOP", "N", corrupt, "ends inside the pickle"},
      {"STOP on an empty stack", ".", corrupt, "stack is empty"},
      {"os.system", "cos\nsystem\n(X\2\0\0\0lsR."s, unsupported, "refers to 'os.system' at byte"},
      {"builtins.eval by STACK_GLOBAL",
       "\x8c\x08"
       "builtins\x8c\x04"
       "eval\x93."s,
       unsupported, "'builtins.eval'"},
      {"a global with a space", "ccollections OrderedDict\n\n."s, unsupported, "refers to"},
      {"a global without an end", "c" + std::string(1000, 'x'), corrupt, "without an end"},
      {"a global that ends early", "cos", corrupt, "ends inside a global's name"},
      {"NEWOBJ", ")\x81."s, unsupported, "opcode 129"},
      {"a text opcode of protocol 0", "I3\n."s, unsupported, "opcode 73"},
      {"protocol 9", "\x80\x09N."s, unsupported, "protocol 9"},
      {"a string beyond the end",
       "X\xff\xff\xff\xff"
       "ab"s,
       corrupt, "a string"},
      {"a string of 2^63 bytes", "\x8d\0\0\0\0\0\0\0\x80."s, corrupt, "a string"},
      {"a call of no function", "N)R."s, corrupt, "no function"},
      {"a call without a tuple", "ctorch\nFloatStorage\n]R."s, corrupt, "no tuple"},
      {"a memo that was never set", "h\7."s, corrupt, "remembered as 7"},
      {"a tuple without a mark", "NNt."s, corrupt, "no mark"},
      {"a pop below the mark", "N(0."s, corrupt, "stack is empty"},
      {"a list appended to a dict", "}Na."s, corrupt, "no list"},
      {"items set on a list", "](NNu."s, corrupt, "no dict"},
      {"a key without a value", "}(Nu."s, corrupt, "without a value"},
  };
  for (const auto& bad : table) {
    SCOPED_TRACE(bad.promise);
    test::expect_error(bad.code, bad.says, [&] { read(bad.bytes); });
    test::expect_error(bad.code, "x: ", [&] { read(bad.bytes); });
  }
}

TEST(Pickle, ValuesBeyondTheLimitAreRefused) {
  test::expect_error(ErrorCode::corrupt, "more than 2097152 values", [&] { read(std::string(3 << 20, 'N') + "."); });
  test::expect_error(ErrorCode::corrupt, "more than 2097152 remembered",
                     [&] { read("N" + std::string(3 << 20, '\x94') + "."); });
  test::expect_error(ErrorCode::unsupported, "at most 67108864", [&] { read(std::string((64 << 20) + 1, 'N')); });
}

}  // namespace
}  // namespace cepe::formats
