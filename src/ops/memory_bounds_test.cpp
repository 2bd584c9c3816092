// The CPU's kernels read whole vectors, and of their operands nothing but what is there: each operand stands at the end
// of memory that can be read, which is also where nothing is aligned.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "distance.h"
#include "every_level.h"
#include "int8_bytes.h"
#include "ops/activation.h"
#include "ops/int8_context.h"
#include "ops/int8_product.h"
#include "ops/int8_rows.h"
#include "ops/norm.h"
#include "ops/packed_weight.h"
#include "ops/pair_attention.h"
#include "ops/rotary.h"
#include "ops/row_attention.h"

namespace cepe::ops {
namespace {

using test::at_every_level;
using test::distance;

// A copy behind which, without a byte between, a page follows that cannot be read.
at::Tensor at_the_end(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t readable = (dense.nbytes() + page - 1) / page * page, size = readable + page;
  auto* memory =
      static_cast<std::byte*>(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  EXPECT_NE(static_cast<void*>(memory), MAP_FAILED);
  EXPECT_EQ(::mprotect(memory + readable, page, PROT_NONE), 0);
  std::byte* first = memory + readable - dense.nbytes();
  if (dense.nbytes() > 0) std::memcpy(first, dense.const_data_ptr(), dense.nbytes());
  return at::from_blob(
      first, dense.sizes(), [=](void*) { ::munmap(memory, size); }, dense.options());
}

const std::vector<at::ScalarType> row_types = {at::kFloat, at::kBFloat16};

TEST(MemoryBounds, HoldForElementwiseOperations) {
  at::manual_seed(1);
  for (const at::ScalarType type : row_types) {
    for (const int64_t width : {1, 7, 17, 33, 64}) {
      const at::Tensor x = at::randn({3, width}).to(type), weight = at::randn({width}).to(type);
      const at::Tensor heads = at::randn({3, 2, width}).to(type), angles = at::rand({3, width / 2});
      const at::Tensor pair = at::randn({3, 2 * width}).to(type);
      const auto end = [](const at::Tensor& tensor) { return at_the_end(tensor); };
      at_every_level([&] {
        EXPECT_TRUE(at::equal(rms_norm(end(x), end(weight), 1e-5), rms_norm(x, weight, 1e-5)));
        EXPECT_TRUE(at::equal(layer_norm(end(x), end(weight), end(weight), 1e-5), layer_norm(x, weight, weight, 1e-5)));
        EXPECT_TRUE(at::equal(gated(Activation::silu, end(pair)), gated(Activation::silu, pair)));
        EXPECT_TRUE(at::equal(rotate(end(heads), end(angles.cos()), end(angles.sin())),
                              rotate(heads, angles.cos(), angles.sin())));
      });
    }
  }
}

TEST(MemoryBounds, HoldForPackedWeights) {
  at::manual_seed(2);
  for (const int64_t out : {1, 16, 37}) {
    for (const int64_t in : {5, 40, 96}) {
      std::vector<PackedWeight> weights = {
          pack_int8_rows(at::randint(-127, 128, {out, in}, at::kChar), at::rand({out}) * 0.01)};
      for (const PackedFormat format : {PackedFormat::q4_0, PackedFormat::q4_1, PackedFormat::q8_0}) {
        const int64_t block = format == PackedFormat::q8_0 ? 34 : format == PackedFormat::q4_1 ? 20 : 18;
        const std::vector<std::byte> blocks(static_cast<size_t>(out * in / 32 * block), std::byte{0x21});
        if (in % 32 == 0) weights.push_back(pack_blocks(format, out, in, blocks));
      }
      for (const PackedWeight& weight : weights) {
        PackedWeight last = weight;
        last.data = at_the_end(weight.data);
        if (weight.scales.defined()) last.scales = at_the_end(weight.scales);
        for (const int64_t rows : {1, 3, 15, 70}) {
          SCOPED_TRACE(c10::str("format ", static_cast<int>(weight.format), " [", out, ", ", in, "], rows ", rows));
          const at::Tensor x = at::randn({rows, in}), narrow = x.to(at::kBFloat16);
          at_every_level([&] {
            EXPECT_LT(distance(packed_linear(at_the_end(x), last), packed_linear(x, weight)), 1e-6);
            EXPECT_LT(distance(packed_linear(at_the_end(narrow), last), packed_linear(narrow, weight)), 1e-2);
          });
          if (in % 8 != 0) continue;
          EXPECT_TRUE(
              at::equal(packed_linear_by_pairs(at_the_end(narrow), last), packed_linear_by_pairs(narrow, weight)));
        }
      }
    }
  }
}

TEST(MemoryBounds, HoldForAttentionOverRows) {
  at::manual_seed(3);
  for (const at::ScalarType type : row_types) {
    for (const int64_t width : {5, 64, 96}) {
      for (const int64_t rows : {1, 3, 33, 65}) {
        const at::Tensor keys = at::randn({rows, 2, width}).to(type), values = at::randn({rows, 2, width}).to(type);
        const std::vector<RowPage> pages = {{keys, values}}, last = {{at_the_end(keys), at_the_end(values)}};
        for (const int64_t asked : {1, 3, 17}) {
          SCOPED_TRACE(c10::str(type, " width ", width, " rows ", rows, " queries ", asked));
          const at::Tensor queries = at::randn({asked, 2, width}), at_end = at_the_end(queries);
          at_every_level([&] {
            EXPECT_TRUE(at::equal(row_attention(at_end, last, 0.2).output, row_attention(queries, pages, 0.2).output));
          });
          if (type == at::kFloat || width % 32 != 0) continue;
          for (const cpu::PairKernel& kernel :
               {cpu::portable_pair_kernel(), cpu::portable_tile_kernel(), cpu::pair_kernel()}) {
            EXPECT_TRUE(at::equal(pair_attention(at_end, last, 0.2, kernel).output,
                                  pair_attention(queries, pages, 0.2, kernel).output));
          }
        }
      }
    }
  }
}

TEST(MemoryBounds, HoldForContextsIn8Bits) {
  at::manual_seed(4);
  for (const int64_t width : {4, 64}) {
    for (const int64_t rows : {1, 63, 64, 65}) {
      const at::Tensor page = int8_rows(at::randn({rows, width}));
      const at::Tensor keys = at::randn({40, width}), values = at::randn({140, width});
      const std::vector<at::Tensor> pages = {page}, last = {at_the_end(page)};
      at_every_level([&] {
        const Int8Context context = project_int8(pages, keys, values, 2);
        Int8Context made = project_int8(last, at_the_end(keys), at_the_end(values), 2);
        ASSERT_EQ(test::bytes_of(made), test::bytes_of(context)) << "width " << width << " rows " << rows;
        const std::vector<int64_t> of_page = {rows};
        const std::vector<at::Tensor> memory = {at_the_end(made.memory.front())};
        made = int8_context_of(memory, 0, of_page, 2, 20, 70);
        for (const int64_t asked : {1, 13, 33}) {
          const at::Tensor queries = at::randn({asked, 2, 20});
          EXPECT_TRUE(at::equal(int8_attention(at_the_end(queries), made, 0.2).output,
                                int8_attention(queries, context, 0.2).output));
        }
      });
      if (width % 64 != 0) continue;
      const PackedWeight weight = pack_int8_rows(at::randint(-127, 128, {9, width}, at::kChar), at::rand({9}));
      PackedWeight at_end = weight;
      at_end.data = at_the_end(weight.data);
      const std::vector<WeightReference> one = {weight}, ended = {at_end};
      EXPECT_TRUE(at::equal(int8_product(last, ended), int8_product(pages, one)));
    }
  }
}

}  // namespace
}  // namespace cepe::ops
