#include "formats/npy.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/files.h"
#include "expect_error.h"
#include "file_bytes.h"

namespace cepe::formats {
namespace {

using base::ErrorCode;
using test::expect_error;
using test::FileBytes;

FileBytes npy(const std::string& dict, size_t data_bytes) {
  return FileBytes("\x93NUMPY")
      .text(std::string_view("\1\0", 2))
      .value(static_cast<uint16_t>(dict.size()))
      .text(dict)
      .zeros(data_bytes);
}

void expect_refused(ErrorCode code, const std::string& text, const FileBytes& file) {
  expect_error(code, text, [&] { parse_npy(file.span(), "x.npy"); });
}

TEST(Npy, WhatNumpyWroteReads) {
  const base::MappedFile matrix("tests/golden/formats/npy/matrix.npy");
  const NumpyArray array = parse_npy(matrix.bytes(), "matrix.npy");
  EXPECT_EQ(array.shape, (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(code_of(array.type), "<u2");
  for (int64_t i = 0; i < 12; ++i) EXPECT_EQ(integer_at(array, i, "matrix.npy"), i);
  const base::MappedFile reals("tests/golden/formats/npy/version3.npy");
  const NumpyArray two = parse_npy(reals.bytes(), "version3.npy");
  EXPECT_EQ(two.type, (NumpyType{'f', 4}));
  float values[2];
  std::memcpy(values, two.bytes.data(), sizeof values);
  EXPECT_EQ(values[0], 1.5f);
  EXPECT_EQ(values[1], -2.0f);
}

TEST(Npy, AHeaderOfOursEqualsNumpysAndReadsBack) {
  const std::string numpys = base::read_file("tests/golden/formats/npy/matrix.npy").substr(0, 128);
  const std::vector<int64_t> matrix{3, 4};
  EXPECT_EQ(npy_header({'u', 2}, matrix), numpys);
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{}, {7}, {2, 0, 5}}) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    const FileBytes file = FileBytes(npy_header({'i', 8}, shape)).zeros(static_cast<size_t>(8 * count));
    EXPECT_EQ(parse_npy(file.span(), "x").shape, shape);
    EXPECT_EQ((file.size() - static_cast<size_t>(8 * count)) % 64, 0u);
  }
}

TEST(Npy, OtherArraysAreRefusedByName) {
  const auto dict = [](const std::string& type, const std::string& order = "False") {
    return "{'descr': " + type + ", 'fortran_order': " + order + ", 'shape': (2, 3), }";
  };
  parse_npy(npy(dict("'<i4'"), 24).span(), "x.npy");
  expect_refused(ErrorCode::unsupported, "'>i4'", npy(dict("'>i4'"), 24));
  expect_refused(ErrorCode::unsupported, "'<c8'", npy(dict("'<c8'"), 48));
  expect_refused(ErrorCode::unsupported, "'|O'", npy(dict("'|O'"), 48));
  expect_refused(ErrorCode::unsupported, "records", npy(dict("[('a', '<i4')]"), 24));
  expect_refused(ErrorCode::unsupported, "Fortran", npy(dict("'<i4'", "True"), 24));
  expect_refused(ErrorCode::corrupt, "does not go with 23 bytes", npy(dict("'<i4'"), 23));
  expect_refused(ErrorCode::corrupt, "does not go with 28 bytes", npy(dict("'<i4'"), 28));
}

TEST(Npy, BrokenHeadersAreRefused) {
  for (const std::string bad : {"", "{", "{}", "{'descr': '<i4', 'fortran_order': False, 'shape': (2}",
                                "{'descr': '<i4", "{'descr': '<i4', 'fortran_order': 0, 'shape': (0,)}",
                                "{'descr': '<i4', 'fortran_order': False, 'shape': (-1,)}",
                                "{'descr': '<i4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
                                "{'descr': '<i4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 0)}x",
                                "{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': (0,)}",
                                "{'descr': '<i4', 'fortran_order': False, 'shape': (9223372036854775807, 8)}"})
    expect_refused(ErrorCode::corrupt, "x.npy", npy(bad, 0));
  expect_refused(ErrorCode::corrupt, "not a .npy file", FileBytes("PK"));
  expect_refused(ErrorCode::unsupported, "version 9", FileBytes("\x93NUMPY\x09").zeros(5));
}

TEST(NumpyArray, FloatsOfEveryWidthAreRead) {
  const auto read = [](int64_t size, const FileBytes& bytes) {
    std::vector<float> values(2);
    read_floats(checked_array({'f', size}, {3}, bytes.span(), "x"), 1, values, "x");
    return values;
  };
  const std::vector<float> expected = {-0.75F, 3};
  EXPECT_EQ(read(2, FileBytes("").zeros(2).value<uint16_t>(0xba00).value<uint16_t>(0x4200)), expected);
  EXPECT_EQ(read(4, FileBytes("").zeros(4).value(-0.75F).value(3.0F)), expected);
  EXPECT_EQ(read(8, FileBytes("").zeros(8).value(-0.75).value(3.0)), expected);
  expect_error(ErrorCode::corrupt, "2 values wanted from place 1; there are 2", [&] {
    std::vector<float> values(2);
    read_floats({{'f', 4}, {2}, FileBytes("").zeros(8).span()}, 1, values, "x");
  });
}

TEST(NumpyArray, NumbersOutsideTheLimitsAreNamedWithTheirPlace) {
  FileBytes bytes;
  for (const int64_t value : {int64_t{5}, int64_t{-1}, int64_t{1} << 40}) bytes.value(value);
  const NumpyArray array{{'i', 8}, {3}, bytes.span()};
  std::vector<int32_t> out(1);
  read_integers(array, 0, 0, 5, out, "x");
  EXPECT_EQ(out[0], 5);
  expect_error(ErrorCode::corrupt, "value -1 at place 1; expected 0 to 9",
               [&] { read_integers(array, 1, 0, 9, out, "x"); });
  expect_error(ErrorCode::corrupt, "value 1099511627776", [&] { read_integers(array, 2, 0, 9, out, "x"); });
  expect_error(ErrorCode::corrupt, "there are 3", [&] { read_integers(array, 3, 0, 9, out, "x"); });
  expect_error(ErrorCode::unsupported, "<f4", [&] { integer_at({{'f', 4}, {1}, bytes.span().first(4)}, 0, "x"); });
}

}  // namespace
}  // namespace cepe::formats
