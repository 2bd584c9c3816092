// Steps by tables on a GPU, recorded as graphs, against passes by host numbers there.
#include "batch_step_bench.h"
#include "gpu.h"
#include "ops/int8_rows.h"

namespace cepe::model {
namespace {

// Widths that the kernels take, and heads that share keys.
test::TinyShape wide_shape() {
  test::TinyShape shape;
  shape.width = 128, shape.head_width = 64, shape.encoder_width = 64, shape.encoder_heads = 2;
  shape.encoder_groups = 1, shape.encoder_head_width = 32;
  return shape;
}

class BatchStepsOnGpu : public test::OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (test::gpu().device) bench_.emplace(at::TensorOptions(device()).dtype(at::kBFloat16), 2e-2, wide_shape());
  }
  test::BatchStepBench& bench() { return *bench_; }

 private:
  std::optional<test::BatchStepBench> bench_;
};

TEST_F(BatchStepsOnGpu, WithoutContexts) {
  bench().expect_the_same({bench().text(9, 5, 1, nullptr)});
  bench().expect_the_same({bench().text(9, 5, 1, nullptr), bench().text(17, 20, 2, nullptr)});
}

TEST_F(BatchStepsOnGpu, DifferentLengthsBlocksAndContexts) {
  const ContextStates long_one = bench().states({200, 256, 3}), short_one = bench().states({5});
  bench().expect_the_same({bench().text(3, 40, -1, nullptr), bench().text(17, 0, 2, &short_one),
                           bench().text(8, 1, 2, &long_one), bench().text(1, 20, 1, &long_one),
                           bench().text(30, 25, 1, &long_one)});
}

TEST_F(BatchStepsOnGpu, KeptContextsSharedAndNot) {
  const ContextStates one = bench().kept(bench().states({8, 8, 3})), other = bench().kept(bench().states({300}));
  bench().expect_the_same({bench().text(4, 0, 1, &one), bench().text(5, 10, 1, &one), bench().text(6, 20, 1, nullptr),
                           bench().text(7, 30, 1, &other)});
}

TEST_F(BatchStepsOnGpu, ShortTextsAsRows) {
  const ContextStates one = bench().states({200, 256, 3}), other = bench().kept(bench().states({300}));
  bench().expect_the_same_prompts({bench().text(9, 5, 1, nullptr)});
  bench().expect_the_same_prompts(
      {bench().text(9, 5, 1, &one), bench().text(1, 20, 1, &one), bench().text(17, 30, 1, nullptr)});
  bench().expect_the_same_prompts({bench().text(40, 5, 1, &other), bench().text(17, 30, 1, &other)});
}

// Of a width whose kernel reads 8 bits.
TEST_F(BatchStepsOnGpu, StatesIn8Bits) {
  if (!device().is_cpu() && !ops::takes_int8_pages(512, device())) GTEST_SKIP() << "no kernel for packed rows here";
  test::TinyShape shape = wide_shape();
  shape.encoder_width = 512, shape.encoder_heads = 8, shape.encoder_groups = 4, shape.encoder_head_width = 64;
  test::BatchStepBench wide(at::TensorOptions(device()).dtype(at::kBFloat16), 2e-2, shape);
  const auto packed = [&](const std::vector<int64_t>& pages) {
    ContextStates result;
    for (const at::Tensor& page : wide.states(pages).pages) result.append(ops::int8_rows(page));
    return result;
  };
  const ContextStates long_one = packed({200, 256, 3}), short_one = packed({5});
  wide.expect_the_same({wide.text(3, 40, -1, nullptr), wide.text(17, 0, 2, &short_one), wide.text(8, 1, 2, &long_one),
                        wide.text(1, 20, 1, &long_one)});
}

TEST_F(BatchStepsOnGpu, MassesOfPagesSharedAndNot) {
  for (const bool kept : {false, true}) {
    ContextStates one = bench().states({200, 256, 3}), other = bench().states({9, 60});
    if (kept) one = bench().kept(one), other = bench().kept(other);
    const std::vector<test::BatchStepBench::Text> texts = {
        bench().text(4, 0, 1, &one), bench().text(5, 10, 1, &one), bench().text(6, 20, 1, nullptr),
        bench().text(7, 30, 1, &other), bench().text(8, 40, 1, &other)};
    for (const size_t asking : {size_t{0}, size_t{1}, size_t{4}}) bench().expect_the_same_masses(texts, asking);
  }
}

TEST_F(BatchStepsOnGpu, MassesOfManyPages) {
  const ContextStates context = bench().states(std::vector<int64_t>(1100, 2));  // more than one call takes
  bench().expect_the_same_masses({bench().text(4, 0, 1, &context)}, 1);
}

TEST_F(BatchStepsOnGpu, EachSizeIsKnownOnceAndContextsMayChange) {
  const ContextStates one = bench().states({8, 2}), other = bench().states({8, 2});
  KvCache kv = bench().cache(), same = bench().cache();
  test::BatchStepBench::Text text = bench().text(4, 0, 1, &one);
  for (KvCache* cache : {&kv, &same}) bench().usual(text, 0, text.prompt, *cache);
  BatchStep step(bench().model, kv, test::BatchStepBench::block_rows, test::BatchStepBench::padding);
  for (int turn = 0; turn < 4; ++turn) {
    text.context = turn % 2 == 0 ? &one : &other;
    text.ids[4] = turn;
    const at::Tensor found = step.logits(at::full({1}, turn, at::kLong), bench().rows_at({text}, 0)).to(at::kCPU);
    EXPECT_LE(test::distance(found, bench().usual(text, 4, 5, same).to(at::kCPU)), bench().tolerance) << turn;
  }
  EXPECT_EQ(step.sizes(), 1);
}

}  // namespace
}  // namespace cepe::model
