// A decoded token's self-attention on a GPU against the same on the CPU, which composes it of its two operations.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gpu.h"
#include "ops/device.h"
#include "ops/device_graph.h"
#include "ops/int8_rows.h"
#include "ops/row_product.h"
#include "ops/token_attention.h"

namespace cepe::ops {
namespace {

struct Shape {
  int64_t heads, groups, width, half;
  std::vector<int64_t> cached;  // rows of each sequence, the token's own included; 0: none
  int64_t block = 64;
  bool interleaved = false;  // query, key and value of a head side by side
  bool in_8_bits = false;    // the cache
};

struct Result {
  at::Tensor output, keys, values;  // the cache's
};

using Places = std::vector<std::vector<std::pair<int64_t, int64_t>>>;  // first row and rows of each sequence's pages

class TokenAttentionOnGpu : public test::OnGpu {
 protected:
  // The same random numbers on any device. Sequences have blocks of a cache in an order of their own; what is not an
  // older row of theirs is NaN. `whole`: heads as tensors of their own, not parts of a fused one.
  static Result attend(const Shape& shape, at::Device device, bool whole = false) {
    at::manual_seed(5);
    const auto sequences = static_cast<int64_t>(shape.cached.size());
    int64_t blocks = 1;  // the first is nobody's
    for (const int64_t rows : shape.cached) blocks += (rows + shape.block - 1) / shape.block;
    const auto there = [&](const at::Tensor& x) { return x.to(at::kBFloat16).to(device); };
    const auto cache = [&] {
      return at::full({blocks * shape.block, shape.groups, shape.width}, std::numeric_limits<double>::quiet_NaN());
    };
    at::Tensor keys = cache(), values = cache();
    const at::Tensor fused = there(at::randn({sequences, (shape.heads + 2 * shape.groups) * shape.width})),
                     angles = at::rand({sequences, shape.half}) * 6.3;
    Places places(shape.cached.size());
    std::vector<int64_t> slots;
    std::vector<int32_t> first = {0};
    int64_t next = blocks;
    for (size_t i = 0; i < places.size(); ++i) {
      slots.push_back(0);
      for (int64_t row = 0; row < shape.cached[i]; row += shape.block) {
        const int64_t begin = --next * shape.block, rows = std::min(shape.block, shape.cached[i] - row);
        const int64_t older = row + rows == shape.cached[i] ? rows - 1 : rows;
        for (at::Tensor* tensor : {&keys, &values})
          tensor->narrow(0, begin, older).copy_(at::randn({older, shape.groups, shape.width}));
        places[i].emplace_back(begin, rows);
        slots.back() = begin + rows - 1;
      }
      first.push_back(first.back() + static_cast<int32_t>(shape.heads / shape.groups));
    }
    const auto cached = [&](const at::Tensor& rows) {
      if (!shape.in_8_bits) return there(rows);
      return empty_int8_heads(rows.size(0), shape.groups, shape.width, device).copy_(int8_rows(rows));
    };
    const at::Tensor cache_keys = cached(keys), cache_values = cached(values);
    const auto part = [&](int64_t number, int64_t begin, int64_t heads) {
      const at::Tensor found =
          shape.interleaved
              ? fused.view({sequences, heads, 3, shape.width}).select(2, number)
              : fused.narrow(1, begin * shape.width, heads * shape.width).view({sequences, heads, shape.width});
      return whole ? found.contiguous() : found;
    };
    const TokenHeads heads = {part(0, 0, shape.heads),
                              part(1, shape.heads, shape.groups),
                              part(2, shape.heads + shape.groups, shape.groups),
                              angles.cos().to(device),
                              angles.sin().to(device),
                              at::tensor(slots, at::kLong).to(device),
                              cache_keys,
                              cache_values};
    const PageTable table = with_room(table_of(cache_keys, cache_values, places), shape.block);
    EXPECT_EQ(has_token_kernel(heads, table), is_for_the_kernel(shape, table, device)) << shape.width;
    // Large scores: a few rows have most of the weight.
    const at::Tensor output = token_attention(heads, table, at::tensor(first, at::kInt).to(device),
                                              3 / std::sqrt(static_cast<double>(shape.width)));
    const auto back = [](const at::Tensor& x) { return unpacked_rows(x.to(at::kCPU), at::kFloat).to(at::kFloat); };
    // Block 0 is where a step's unused rows may be written.
    const auto used = [&](const at::Tensor& x) {
      return back(x.narrow(0, shape.block, (blocks - 1) * shape.block)).nan_to_num(77);
    };
    return {back(output), used(cache_keys), used(cache_values)};
  }

  static PageTable table_of(const at::Tensor& keys, const at::Tensor& values, const Places& places) {
    std::vector<int32_t> first_page = {0}, rows;
    std::vector<int64_t> key_addresses, value_addresses;
    for (const auto& pages : places) {
      for (const auto& [begin, count] : pages) {
        key_addresses.push_back(address_of(keys.narrow(0, begin, count)));
        value_addresses.push_back(address_of(values.narrow(0, begin, count)));
        rows.push_back(static_cast<int32_t>(count));
      }
      first_page.push_back(static_cast<int32_t>(rows.size()));
    }
    PageTable table = cache_form(keys, values);
    table.first_page = at::tensor(first_page, at::kInt).to(keys.device());
    table.keys = at::tensor(key_addresses, at::kLong).to(keys.device());
    table.values = at::tensor(value_addresses, at::kLong).to(keys.device());
    table.rows = at::tensor(rows, at::kInt).to(keys.device());
    return table;
  }

  // A table as steps have it: larger than what is used of it.
  static PageTable with_room(PageTable table, int64_t page_rows) {
    const auto more = [](const at::Tensor& entries, int64_t filling) {
      return at::cat({entries, at::full({5}, filling, entries.options())});
    };
    table.keys = more(table.keys, 0);
    table.values = more(table.values, 0);
    table.rows = more(table.rows, page_rows);
    table.page_rows = page_rows;
    return table;
  }

  static bool is_for_the_kernel(const Shape& shape, const PageTable& table, at::Device device) {
    return device.is_cuda() && compute_capability(device) == 90 &&
           (shape.width == 64 || shape.width == 128 || shape.width == 256) && shape.heads <= 8 * shape.groups &&
           shape.half % 4 == 0 &&
           (shape.in_8_bits || table.keys.numel() * shape.block <= 8192 * static_cast<int64_t>(shape.cached.size()));
  }

  // With a cache of either kind, where there is a kernel for 8 bits.
  static void expect(Shape shape) {
    expect_as(shape);
    shape.in_8_bits = true;
    const bool is_known_width = shape.width == 64 || shape.width == 128 || shape.width == 256;
    const int64_t most_heads = shape.half % 4 == 0 ? 8 : 4;  // of a group
    if (device().is_cpu() ||
        (compute_capability(device()) == 90 && is_known_width && shape.heads <= most_heads * shape.groups)) {
      expect_as(shape);
    }
  }

  static void expect_as(const Shape& shape) {
    const std::string name = std::to_string(shape.heads) + " heads, " + std::to_string(shape.groups) + " groups of " +
                             std::to_string(shape.width) + ", " + std::to_string(2 * shape.half) + " turned, " +
                             std::to_string(shape.cached.size()) + " sequences of " +
                             std::to_string(shape.cached.front()) + (shape.in_8_bits ? " in 8 bits" : "");
    const Result here = attend(shape, at::kCPU), there = attend(shape, device());
    EXPECT_TRUE(there.keys.equal(here.keys)) << name;
    EXPECT_TRUE(there.values.equal(here.values)) << name;
    const double distance = (there.output - here.output).abs().max().item<double>();
    EXPECT_FALSE(there.output.isnan().any().item<bool>()) << name;
    EXPECT_LE(distance, 1e-2 * here.output.abs().max().item<double>()) << name;
    EXPECT_TRUE(there.output.equal(attend(shape, device()).output)) << name << ": twice";
    EXPECT_TRUE(there.output.equal(attend(shape, device(), true).output)) << name << ": of tensors of their own";
  }
};

TEST_F(TokenAttentionOnGpu, HeadsOfEveryWidthAndGroup) {
  for (const int64_t width : {64, 96, 128, 256}) {
    for (const auto& [heads, groups] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {32, 32}, {4, 2}, {9, 3}, {16, 4}, {5, 1}, {14, 2}, {8, 1}, {18, 2}}) {  // one to nine a group
      expect({heads, groups, width, width / 2, {300, 1, 64, 65, 0}});
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

TEST_F(TokenAttentionOnGpu, QueryKeyAndValueOfAHeadSideBySide) {
  for (const int64_t width : {64, 128, 256}) expect({8, 8, width, width / 8, {200, 70}, 64, true});
}

TEST_F(TokenAttentionOnGpu, WhatIsNotANumberStaysInItsGroup) {
  at::manual_seed(6);
  const auto there = [&](const at::Tensor& x) { return x.to(at::kBFloat16).to(device()); };
  for (const int64_t part : {0, 1, 2}) {
    std::array<at::Tensor, 3> heads = {at::randn({1, 8, 64}), at::randn({1, 4, 64}), at::randn({1, 4, 64})};
    heads[static_cast<size_t>(part)][0][part == 0 ? 3 : 1][5] = std::numeric_limits<float>::quiet_NaN();
    const at::Tensor keys = there(at::randn({64, 4, 64})), values = there(at::randn({64, 4, 64})),
                     angles = at::rand({1, 32}).to(device());
    const PageTable table =
        page_table(std::vector<std::vector<RowPage>>{{{keys.narrow(0, 0, 40), values.narrow(0, 0, 40)}}}, device());
    const at::Tensor output = token_attention({there(heads[0]), there(heads[1]), there(heads[2]), angles.cos(),
                                               angles.sin(), at::tensor({39}, at::kLong).to(device()), keys, values},
                                              table, at::tensor({0, 2}, at::kInt).to(device()), 0.1);
    const at::Tensor found = output.isnan().any(-1).to(at::kCPU)[0];
    for (int64_t head = 0; head < 8; ++head)
      EXPECT_EQ(found[head].item<bool>(), part == 0 ? head == 3 : head / 2 == 1) << part << " " << head;
  }
}

// Kernels in line: products that take long, whose successors begin while they run, over several layers and tokens.
TEST_F(TokenAttentionOnGpu, ReadsNothingThatIsYetToBeWritten) {
  if (device().is_cpu()) GTEST_SKIP() << "kernels follow one another there";
  constexpr int64_t heads = 32, width = 128, layers = 3, cached = 600, block = 64, tokens = 12, inner = heads * width;
  at::manual_seed(7);
  const auto random = [&](at::IntArrayRef sizes, double factor) {
    return (at::randn(sizes, at::TensorOptions(device())) * factor).to(at::kBFloat16);
  };
  struct Layer {
    at::Tensor in, out, keys, values;
    PageTable table;
  };
  std::vector<Layer> model;
  for (int64_t i = 0; i < layers; ++i) {
    model.push_back({random({3 * inner, inner}, 0.02),
                     random({inner, inner}, 0.02),
                     random({640, heads, width}, 1),
                     random({640, heads, width}, 1),
                     {}});
    std::vector<std::vector<RowPage>> pages(1);
    for (int64_t row = 0; row < 640; row += block)
      pages[0].push_back({model.back().keys.narrow(0, row, block), model.back().values.narrow(0, row, block)});
    model.back().table = page_table(pages, device());
  }
  const at::Tensor x = random({1, inner}, 1), result = at::empty_like(x),
                   angles = at::rand({1, width / 2}).to(device()), cos = angles.cos(), sin = angles.sin(),
                   slots = at::full({1}, cached, angles.options().dtype(at::kLong)),
                   first = at::tensor({0, 1}, at::kInt).to(device());
  const auto step = [&](bool waits) {
    at::Tensor hidden = x;
    const auto wait = [&](const at::Tensor& tensor) {
      if (waits) tensor.sum().item<float>();
      return tensor;
    };
    for (const Layer& layer : model) {
      const at::Tensor fused = wait(row_product(hidden, layer.in));
      const auto part = [&](int64_t number) { return fused.narrow(1, number * inner, inner).view({1, heads, width}); };
      const at::Tensor attended = wait(token_attention(
          {part(0), part(1), part(2), cos, sin, slots, layer.keys, layer.values}, layer.table, first, 0.3));
      hidden = wait(row_product(attended.view({1, inner}), layer.out));
    }
    result.copy_(hidden);
  };
  const auto generate = [&](const std::function<void()>& next) {
    std::vector<at::Tensor> found;
    x.copy_(at::ones_like(x));
    for (int64_t i = 0; i < tokens; ++i) {
      slots.fill_(cached + i);
      for (const Layer& layer : model) layer.table.rows.narrow(0, cached / block, 1).fill_((cached + i) % block + 1);
      next();
      found.push_back(result.to(at::kCPU));
      x.copy_(result / result.norm() * 64);
    }
    return found;
  };
  const std::vector<at::Tensor> expected = generate([&] { step(true); });
  const auto graph = DeviceGraph::record(device(), [&] { step(false); });
  for (int turn = 0; turn < 3; ++turn) {
    for (const Layer& layer : model)  // what the tokens wrote
      for (const at::Tensor& cache : {layer.keys, layer.values}) cache.narrow(0, cached, 640 - cached).fill_(9);
    const std::vector<at::Tensor> found = generate([&] { graph->replay(); });
    for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(found[i].equal(expected[i])) << i;
  }
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
