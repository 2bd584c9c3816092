#include "engine/kept_contexts.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "ops/int8_context.h"

namespace cepe::engine {
namespace {

at::Tensor bytes(int64_t count) { return at::zeros({count}, at::kByte); }

std::shared_ptr<const ops::Int8Context> layer(const std::vector<at::Tensor>& memory) {
  ops::Int8Context context;
  context.memory = memory;
  return std::make_shared<const ops::Int8Context>(context);
}

// Pages of all layers stand together; what a conversation adds stands layer by layer behind them.
TEST(KeptContexts, CountEveryPieceOfMemoryOnce) {
  const at::Tensor page = bytes(100), other = bytes(20);
  model::ContextStates context;
  for (const at::Tensor& added : {bytes(3), bytes(5)}) context.kept.push_back({{}, {}, layer({page, other, added})});
  model::ContextStates shared;
  for (int i = 0; i < 2; ++i) shared.kept.push_back({{}, {}, layer({page, other})});
  KeptContexts kept;
  const auto first = std::make_shared<const model::ContextStates>(shared);
  kept.add(first);
  EXPECT_EQ(kept.bytes(), 120);
  {
    const auto second = std::make_shared<const model::ContextStates>(context);
    kept.add(second);
    EXPECT_EQ(kept.bytes(), 128);
  }
  EXPECT_EQ(kept.bytes(), 120);
}

}  // namespace
}  // namespace cepe::engine
