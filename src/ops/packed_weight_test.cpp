#include "ops/packed_weight.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "distance.h"
#include "every_level.h"
#include "ops/cpu/kernels.h"

namespace cepe::ops {
namespace {

using test::at_every_level;
using test::distance;

const std::vector<PackedFormat> block_formats = {PackedFormat::q4_0, PackedFormat::q4_1, PackedFormat::q8_0};

int64_t block_bytes(PackedFormat format) {
  return format == PackedFormat::q8_0 ? 34 : format == PackedFormat::q4_1 ? 20 : 18;
}

// Random blocks with scales between 2^-9 and 2^-5 (float16 exponents 6 to 9), either sign.
std::vector<std::byte> random_blocks(PackedFormat format, int64_t out, int64_t in, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(out * in / 32 * block_bytes(format));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  for (size_t at = 0; at < bytes.size(); at += block_bytes(format)) {
    for (int half = 0; half < (format == PackedFormat::q4_1 ? 2 : 1); ++half) {
      const auto bits = static_cast<uint16_t>((random() & 0x83ffu) | ((6 + random() % 4) << 10));
      std::memcpy(bytes.data() + at + 2 * half, &bits, 2);
    }
  }
  return bytes;
}

PackedWeight random_weight(PackedFormat format, int64_t out, int64_t in, uint32_t seed) {
  if (format == PackedFormat::int8_row) {
    const at::Tensor values = at::randint(-127, 128, {out, in}, at::kChar);
    return pack_int8_rows(values, at::rand({out}) * 0.01 + 0.001);
  }
  return pack_blocks(format, out, in, random_blocks(format, out, in, seed));
}

// The definition in the header, from the file's bytes.
std::vector<float> defined_values(PackedFormat format, std::span<const std::byte> blocks) {
  std::vector<float> values;
  for (size_t at = 0; at < blocks.size(); at += block_bytes(format)) {
    uint16_t d = 0, m = 0;
    std::memcpy(&d, blocks.data() + at, 2);
    if (format == PackedFormat::q4_1) std::memcpy(&m, blocks.data() + at + 2, 2);
    const std::byte* quants = blocks.data() + at + (format == PackedFormat::q4_1 ? 4 : 2);
    for (int i = 0; i < 32; ++i) {
      const float scale = base::float16_to_float(d);
      if (format == PackedFormat::q8_0) {
        values.push_back(static_cast<float>(static_cast<int8_t>(quants[i])) * scale);
        continue;
      }
      const int q = i < 16 ? static_cast<int>(quants[i]) & 15 : static_cast<int>(quants[i - 16]) >> 4;
      values.push_back(format == PackedFormat::q4_1 ? static_cast<float>(q) * scale + base::float16_to_float(m)
                                                    : static_cast<float>(q - 8) * scale);
    }
  }
  return values;
}

TEST(PackedWeight, UnpacksToTheDefinitionOfEachBlockFormat) {
  for (const PackedFormat format : block_formats) {
    for (const int64_t out : {1, 15, 16, 17, 50}) {
      const std::vector<std::byte> blocks = random_blocks(format, out, 96, 7);
      const at::Tensor whole = unpack(pack_blocks(format, out, 96, blocks), at::kFloat).contiguous();
      const std::vector<float> expected = defined_values(format, blocks);
      ASSERT_EQ(whole.numel(), static_cast<int64_t>(expected.size()));
      EXPECT_EQ(std::memcmp(whole.const_data_ptr<float>(), expected.data(), expected.size() * 4), 0);
    }
  }
}

TEST(PackedWeight, HandMadeQ4BlockUnpacksByHand) {
  std::vector<std::byte> block(20);
  const uint16_t d = 0x3800, m = 0xc000;  // 0.5, -2
  std::memcpy(block.data(), &d, 2);
  std::memcpy(block.data() + 2, &m, 2);
  block[4] = std::byte{0x3f};   // value 0 = 15, value 16 = 3
  block[19] = std::byte{0x81};  // value 15 = 1, value 31 = 8
  const at::Tensor row = unpack(pack_blocks(PackedFormat::q4_1, 1, 32, block), at::kFloat)[0];
  EXPECT_EQ(row[0].item<float>(), 15 * 0.5f - 2);
  EXPECT_EQ(row[16].item<float>(), 3 * 0.5f - 2);
  EXPECT_EQ(row[15].item<float>(), 1 * 0.5f - 2);
  EXPECT_EQ(row[31].item<float>(), 8 * 0.5f - 2);
  EXPECT_EQ(row[5].item<float>(), -2);
}

TEST(PackedWeight, FewRowsGiveTheUnpackedFloatProduct) {
  at::manual_seed(3);
  for (const PackedFormat format :
       {PackedFormat::q4_0, PackedFormat::q4_1, PackedFormat::q8_0, PackedFormat::int8_row}) {
    for (const auto& [out, in] : std::vector<std::pair<int64_t, int64_t>>{{17, 32}, {37, 64}, {96, 576}, {1600, 192}}) {
      const PackedWeight weight = random_weight(format, out, in, 11);
      const at::Tensor dense = unpack(weight, at::kDouble);
      for (int64_t rows = 0; rows < 16; ++rows) {
        const at::Tensor x = at::randn({rows, in});
        const at::Tensor expected = at::linear(x.to(at::kDouble), dense);
        at_every_level([&] {
          EXPECT_LT(distance(packed_linear(x, weight), expected), 1e-6)
              << static_cast<int>(format) << " " << out << "x" << in << " rows " << rows;
        });
      }
    }
  }
}

TEST(PackedWeight, ManyFloatRowsGiveTheUnpackedFloatProduct) {
  at::manual_seed(8);
  for (const PackedFormat format :
       {PackedFormat::q4_0, PackedFormat::q4_1, PackedFormat::q8_0, PackedFormat::int8_row}) {
    const PackedWeight weight = random_weight(format, 330, 160, 9);
    for (const int64_t rows : {16, 40, 64, 65, 143}) {
      const at::Tensor x = at::randn({rows, 160});
      const at::Tensor expected = at::linear(x.to(at::kDouble), unpack(weight, at::kDouble));
      at_every_level([&] { EXPECT_LT(distance(packed_linear(x, weight), expected), 1e-6) << rows; });
    }
  }
}

TEST(PackedWeight, RowsOfOddWidthAreExactInInt8) {
  at::manual_seed(5);
  for (const int64_t in : {1, 7, 33}) {
    const PackedWeight weight = random_weight(PackedFormat::int8_row, 21, in, 0);
    const at::Tensor x = at::randn({3, in});
    const at::Tensor expected = at::linear(x.to(at::kDouble), unpack(weight, at::kDouble));
    at_every_level([&] { EXPECT_LT(distance(packed_linear(x, weight), expected), 1e-6); });
  }
}

TEST(PackedWeight, ManyRowsOfBfloat16StayWithinBfloat16) {
  at::manual_seed(4);
  for (const PackedFormat format :
       {PackedFormat::q4_0, PackedFormat::q4_1, PackedFormat::q8_0, PackedFormat::int8_row}) {
    for (const int64_t rows : {16, 17, 40, 63, 64, 100}) {
      const PackedWeight weight = random_weight(format, 1601, 576, 12);
      const at::Tensor x = at::randn({rows, 576}).to(at::kBFloat16);
      const at::Tensor expected = at::linear(x.to(at::kDouble), unpack(weight, at::kDouble));
      at_every_level([&] {
        const at::Tensor y = packed_linear(x, weight);
        EXPECT_EQ(y.scalar_type(), at::kBFloat16);
        EXPECT_LT(distance(y, expected), 1e-2);
      });
    }
  }
}

// Values of blocks are bfloat16 exactly, sums and scales float32: off by the rounding of the result alone.
TEST(PackedWeight, RowsByPairsAreRoundedOnce) {
  at::manual_seed(14);
  for (const PackedFormat format :
       {PackedFormat::q4_0, PackedFormat::q4_1, PackedFormat::q8_0, PackedFormat::int8_row}) {
    for (const int64_t rows : {0, 1, 7, 8, 29, 64}) {
      const PackedWeight weight = random_weight(format, 83, 192, 13);
      const at::Tensor x = at::randn({rows, 192}).to(at::kBFloat16);
      const at::Tensor expected = at::linear(x.to(at::kDouble), unpack(weight, at::kDouble));
      for (const cpu::PackedPairKernel& kernel : {cpu::portable_packed_pair_kernel(), cpu::packed_pair_kernel()}) {
        const at::Tensor off = (packed_linear_by_pairs(x, weight, kernel).to(at::kDouble) - expected).abs();
        EXPECT_TRUE((off <= expected.abs() / 256 + 1e-5 * expected.abs().sum() / std::max<int64_t>(1, 83 * rows))
                        .all()
                        .item<bool>())
            << static_cast<int>(format) << " rows " << rows;
      }
    }
  }
  EXPECT_THROW(packed_linear_by_pairs(at::randn({2, 192}), random_weight(PackedFormat::q4_0, 3, 192, 1)), base::Error);
}

TEST(PackedWeight, RowsAreThoseOfTheWholeMatrix) {
  for (const PackedFormat format :
       {PackedFormat::q4_0, PackedFormat::q4_1, PackedFormat::q8_0, PackedFormat::int8_row}) {
    const PackedWeight weight = random_weight(format, 70, 64, 2);
    const at::Tensor rows = at::randint(0, 70, {9}, at::kLong);
    EXPECT_TRUE(at::equal(unpack_rows(weight, rows, at::kFloat), unpack(weight, at::kFloat).index_select(0, rows)));
  }
}

TEST(PackedWeight, ConcatenationIsTheRowsUnderOneAnother) {
  for (const PackedFormat format :
       {PackedFormat::q4_0, PackedFormat::q4_1, PackedFormat::q8_0, PackedFormat::int8_row}) {
    const std::vector<PackedWeight> parts = {random_weight(format, 48, 64, 1), random_weight(format, 37, 64, 2),
                                             random_weight(format, 30, 64, 3)};
    const at::Tensor expected =
        at::cat({unpack(parts[0], at::kFloat), unpack(parts[1], at::kFloat), unpack(parts[2], at::kFloat)});
    EXPECT_TRUE(at::equal(unpack(concatenate(parts), at::kFloat), expected));
  }
}

TEST(PackedWeight, SizesThatDisagreeAreRefused) {
  const std::vector<std::byte> blocks(18 * 4);
  EXPECT_THROW(pack_blocks(PackedFormat::q4_0, 4, 33, blocks), base::Error);
  EXPECT_THROW(pack_blocks(PackedFormat::q4_0, 5, 32, blocks), base::Error);
  EXPECT_THROW(pack_blocks(PackedFormat::q4_1, 4, 32, blocks), base::Error);
  EXPECT_THROW(pack_blocks(PackedFormat::q4_0, -4, 32, blocks), base::Error);
  const PackedWeight weight = pack_blocks(PackedFormat::q4_0, 4, 32, blocks);
  EXPECT_THROW(packed_linear(at::randn({2, 64}), weight), base::Error);
  EXPECT_THROW(unpack_rows(weight, at::arange(5), at::kFloat), base::Error);
  EXPECT_THROW(concatenate({}), base::Error);
  EXPECT_THROW(pack_int8_rows(at::randn({2, 4}), at::rand({2})), base::Error);
}

TEST(PackedWeight, BytesAreThoseOfTheFile) {
  EXPECT_EQ(packed_bytes(random_weight(PackedFormat::q4_1, 64, 96, 1)), 64 * 3 * 20);
  EXPECT_EQ(packed_bytes(random_weight(PackedFormat::q8_0, 64, 96, 1)), 64 * 3 * 34);
}

}  // namespace
}  // namespace cepe::ops
