// The kernel against the composition on the CPU: both types of each part, widths that are no multiple of a 16-byte
// load, rows that saw no key, both orders in memory.
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>

#include <limits>

#include "gpu.h"
#include "ops/merge_attention.h"

namespace cepe::ops {
namespace {

class MergeAttentionOnGpu : public test::OnGpu {};

TEST_F(MergeAttentionOnGpu, IsTheComposition) {
  const auto both_types = {at::kFloat, at::kBFloat16};
  for (const int64_t width : {1, 12, 128}) {
    for (const auto first_type : both_types) {
      for (const auto second_type : both_types) {
        const auto part = [&](at::ScalarType type, int64_t empty) {
          PartialAttention made = {at::randn({5, 33, width}).to(type), at::randn({5, 33}) * 5};
          made.log_sum_exp.view({-1}).narrow(0, empty, 40).fill_(-std::numeric_limits<float>::infinity());
          return made;
        };
        const PartialAttention first = part(first_type, 0), second = part(second_type, 20);
        const PartialAttention expected = merge_attention(first, second);
        for (const bool by_row : {false, true}) {
          const auto there = [&](const PartialAttention& from) {
            const at::Tensor output = from.output.to(device());
            return PartialAttention{by_row ? output.transpose(0, 1).contiguous().transpose(0, 1) : output,
                                    from.log_sum_exp.to(device())};
          };
          const PartialAttention found = merge_attention(there(first), there(second));
          EXPECT_EQ(found.output.strides(), there(first).output.strides());
          EXPECT_LT((found.output.cpu() - expected.output).abs().max().item<float>(), 1e-5) << width;
          const at::Tensor off = found.log_sum_exp.cpu() - expected.log_sum_exp;  // infinity less itself is no number
          EXPECT_LT(off.nan_to_num(0).abs().max().item<float>(), 1e-5) << width;
          EXPECT_TRUE(found.log_sum_exp.cpu().isneginf().equal(expected.log_sum_exp.isneginf()));
        }
      }
    }
  }
}

}  // namespace
}  // namespace cepe::ops
