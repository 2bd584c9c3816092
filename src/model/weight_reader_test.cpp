#include "model/weight_reader.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

#include "base/files.h"

namespace cepe::model {
namespace {

formats::TensorView view_of(const at::Tensor& tensor) {
  return {formats::DType::float32,
          tensor.sizes().vec(),
          {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

// Two heads of width 6 as Hugging Face has them, and the same rows as GGUF's llama keeps them: row p of a head stands
// at 2p, row p + D/2 at 2p + 1.
struct GgufRows : testing::Test {
  const at::Tensor ordered = at::arange(12 * 4, at::kFloat).reshape({12, 4});
  const at::Tensor stored = in_gguf_order(ordered);

  static at::Tensor in_gguf_order(const at::Tensor& rows) {
    std::vector<at::Tensor> out;
    for (const int64_t head : {0, 1}) {
      for (int64_t p = 0; p < 3; ++p) {
        out.push_back(rows[head * 6 + p]);
        out.push_back(rows[head * 6 + p + 3]);
      }
    }
    return at::stack(out, 0).contiguous();
  }
};

TEST_F(GgufRows, OfAHeadComeBackInOrder) {
  const std::vector<std::byte> found = unpermute_rows(view_of(stored), 2);
  ASSERT_EQ(found.size(), ordered.nbytes());
  EXPECT_EQ(std::memcmp(found.data(), ordered.const_data_ptr(), found.size()), 0);
}

TEST_F(GgufRows, OnlyPartsThatAreSaidToBePermutedAreTouched) {
  const base::Path folder = std::filesystem::temp_directory_path() / ("cepe-rows-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const std::vector<formats::NamedTensor> parts = {{"q.weight", view_of(stored)}, {"v.weight", view_of(ordered)}};
  formats::write_safetensors(folder, "model", parts, {}, 1 << 20);
  const formats::Checkpoint checkpoint = formats::Checkpoint::open(folder);
  WeightReader reader(checkpoint, {WeightType::float32, at::kCPU, false});
  const Linear linear = reader.linear({"q", "v"}, {12, 12}, 4, {false, false, {2, 0}});
  std::filesystem::remove_all(folder);
  EXPECT_TRUE(linear.weight.equal(at::cat({ordered, ordered}, 0)));
}

}  // namespace
}  // namespace cepe::model
