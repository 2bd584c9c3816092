// The soak on a GPU: recorded steps, contexts that become hot, texts among the rows of a step.
#include "gpu.h"
#include "soak.h"

namespace cepe::engine {
namespace {

class SoakOnGpu : public test::OnGpu {};

TEST_F(SoakOnGpu, WhateverIsAskedTogetherEachAnswerIsTheOneAloneAndNothingIsLeft) {
  test::TinyShape shape;
  shape.width = 128, shape.head_width = 64;
  // States dearer to read than K and V, so that contexts become hot.
  shape.encoder_width = 512, shape.encoder_heads = 16, shape.encoder_groups = 8, shape.encoder_head_width = 32;
  const at::TensorOptions values = at::TensorOptions(device()).dtype(at::kBFloat16);
  test::Soak soak(test::with_values(test::tiny_model(41, shape), values),
                  {.cached_row_bytes = int64_t{3} * 2 * 2 * 64 * 2,
                   .pads_tables = true,
                   .tolerance = 6e-2,  // rounding to bfloat16 moves the logits of so small a model by that much
                   .answers_that_part = 40});
  for (uint32_t seed = 0; seed < 4; ++seed) soak.run(seed);
  soak.expect_everything_was_met();
}

}  // namespace
}  // namespace cepe::engine
