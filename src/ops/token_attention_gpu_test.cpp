// A decoded token's self-attention on a GPU against the same on the CPU, which composes it of its two operations.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>

#include <string>
#include <vector>

#include "gpu.h"
#include "ops/token_attention.h"

namespace cepe::ops {
namespace {

struct Shape {
  int64_t heads, groups, width, half;
  std::vector<int64_t> cached;  // rows of each sequence, the token's own included; 0: none
  int64_t block = 64;
};

struct Result {
  at::Tensor output, keys, values;  // the cache's
};

class TokenAttentionOnGpu : public test::OnGpu {
 protected:
  // The same random numbers on any device. Sequences have blocks of a cache in an order of their own.
  static Result attend(const Shape& shape, at::Device device, bool gathered = false) {
    at::manual_seed(5);
    const auto sequences = static_cast<int64_t>(shape.cached.size());
    int64_t blocks = 1;  // the first is nobody's
    for (const int64_t rows : shape.cached) blocks += (rows + shape.block - 1) / shape.block;
    const auto there = [&](const at::Tensor& x) { return x.to(at::kBFloat16).to(device); };
    const at::Tensor cache_keys = there(at::randn({blocks * shape.block, shape.groups, shape.width})),
                     cache_values = there(at::randn({blocks * shape.block, shape.groups, shape.width})),
                     fused = there(at::randn({sequences, (shape.heads + 2 * shape.groups) * shape.width})),
                     angles = (at::rand({sequences, shape.half}) * 6.3);
    std::vector<std::vector<RowPage>> pages(shape.cached.size());
    std::vector<int64_t> slots;
    std::vector<int32_t> first = {0};
    int64_t next = blocks;
    for (size_t i = 0; i < pages.size(); ++i) {
      slots.push_back(0);
      for (int64_t row = 0; row < shape.cached[i]; row += shape.block) {
        const int64_t begin = --next * shape.block, rows = std::min(shape.block, shape.cached[i] - row);
        pages[i].push_back({cache_keys.narrow(0, begin, rows), cache_values.narrow(0, begin, rows)});
        slots.back() = begin + rows - 1;
      }
      first.push_back(first.back() + static_cast<int32_t>(shape.heads / shape.groups));
    }
    const auto part = [&](int64_t begin, int64_t heads) {
      const at::Tensor found = fused.narrow(1, begin * shape.width, heads * shape.width);
      return (gathered ? found.contiguous() : found).view({sequences, heads, shape.width});
    };
    PageTable table = page_table(pages, device);
    table.page_rows = shape.block;
    const TokenHeads heads = {part(0, shape.heads),
                              part(shape.heads, shape.groups),
                              part(shape.heads + shape.groups, shape.groups),
                              angles.cos().to(device),
                              angles.sin().to(device),
                              at::tensor(slots, at::kLong).to(device),
                              cache_keys,
                              cache_values};
    const at::Tensor output = token_attention(heads, table, at::tensor(first, at::kInt).to(device), 0.1);
    const auto back = [](const at::Tensor& x) { return x.to(at::kCPU, at::kFloat); };
    // Block 0 is where a step's unused rows may be written.
    const auto used = [&](const at::Tensor& x) { return back(x.narrow(0, shape.block, (blocks - 1) * shape.block)); };
    return {back(output), used(cache_keys), used(cache_values)};
  }

  static void expect(const Shape& shape) {
    const std::string name = std::to_string(shape.heads) + " heads, " + std::to_string(shape.groups) + " groups of " +
                             std::to_string(shape.width) + ", " + std::to_string(2 * shape.half) + " turned, " +
                             std::to_string(shape.cached.size()) + " sequences of " +
                             std::to_string(shape.cached.front());
    const Result here = attend(shape, at::kCPU), there = attend(shape, device());
    EXPECT_TRUE(there.keys.equal(here.keys)) << name;
    EXPECT_TRUE(there.values.equal(here.values)) << name;
    const double distance = (there.output - here.output).abs().max().item<double>();
    EXPECT_LE(distance, 1e-2 * here.output.abs().max().item<double>()) << name;
    EXPECT_TRUE(there.output.equal(attend(shape, device()).output)) << name << ": twice";
    EXPECT_TRUE(there.output.equal(attend(shape, device(), true).output)) << name << ": of tensors of their own";
  }
};

TEST_F(TokenAttentionOnGpu, HeadsOfEveryWidthAndGroup) {
  for (const int64_t width : {64, 96, 128, 256}) {
    for (const auto& [heads, groups] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {32, 32}, {4, 2}, {9, 3}, {16, 4}, {5, 1}, {14, 2}, {8, 1}, {18, 2}}) {  // one to nine a group
      expect({heads, groups, width, width / 2, {300, 1, 64, 65}});
    }
  }
}

TEST_F(TokenAttentionOnGpu, CachesOfEveryLength) {
  for (const int64_t width : {64, 128, 256}) {
    for (const int64_t rows : {1, 2, 15, 16, 17, 33, 129, 2048, 2049, 5000, 9000})
      expect({4, 4, width, width / 2, {rows}});
    expect({4, 4, width, width / 2, {700}, 256});
    expect({4, 4, width, width / 2, {31}, 1});
    expect({4, 4, width, width / 2, {50}, 7});
  }
}

TEST_F(TokenAttentionOnGpu, RotationsOfAFewChannelsOrOdd) {
  for (const int64_t half : {0, 4, 8, 20, 6, 3}) expect({8, 4, 64, half, {200, 70}});
}

// Down to a block each, and to the small blocks of short sequences; some are none.
TEST_F(TokenAttentionOnGpu, ManySequences) {
  for (const int64_t most : {60, 130, 700}) {
    Shape shape = {8, 8, 128, 64, {}};
    for (int64_t i = 0; i < 130; ++i) shape.cached.push_back(i % 7 == 3 ? 0 : 1 + i * 37 % most);
    expect(shape);
  }
}

}  // namespace
}  // namespace cepe::ops
