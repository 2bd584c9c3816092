#include "cli/memory_plan.h"

#include <gtest/gtest.h>

namespace cepe::cli {
namespace {

TEST(MemoryPlan, TensorsOfEveryNamingAreCountedWhereTheyBelong) {
  EXPECT_EQ(part_of("model.embed_tokens.weight"), Part::embedding);
  EXPECT_EQ(part_of("token_embd.weight"), Part::embedding);
  EXPECT_EQ(part_of("transformer.wpe.weight"), Part::embedding);
  EXPECT_EQ(part_of("model.layers.3.self_attn.q_proj.weight"), Part::attention);
  EXPECT_EQ(part_of("blk.3.attn_output.weight"), Part::attention);
  EXPECT_EQ(part_of("transformer.h.0.attn.c_attn.weight"), Part::attention);
  EXPECT_EQ(part_of("gpt_neox.layers.0.attention.query_key_value.bias"), Part::attention);
  EXPECT_EQ(part_of("model.layers.3.mlp.up_proj.weight"), Part::feed_forward);
  EXPECT_EQ(part_of("blk.3.ffn_down.weight"), Part::feed_forward);
  EXPECT_EQ(part_of("model.layers.3.post_attention_layernorm.weight"), Part::norms);
  EXPECT_EQ(part_of("blk.3.ffn_norm.weight"), Part::norms);
  EXPECT_EQ(part_of("output_norm.weight"), Part::norms);
  EXPECT_EQ(part_of("output.weight"), Part::output);
  EXPECT_EQ(part_of("lm_head.weight"), Part::output);
  EXPECT_EQ(part_of("encoder.layers.0.self_attn.q_proj.weight"), Part::encoder);
  EXPECT_EQ(part_of("model.layers.3.cross_attn.layernorm.weight"), Part::cross_attention);
}

// The figures of the method: 2 KiB of states a token against 512 KiB for a 7B multi-head decoder.
TEST(MemoryPlan, StatesOfASevenBillionModelTakeTwoKibibytesAToken) {
  model::DecoderConfig decoder;
  decoder.layers = 32;
  decoder.heads = decoder.groups = 32;
  decoder.head_width = 128;
  const ContextMemory memory = context_memory(decoder, 1024, 32, 1000, 2, false);
  EXPECT_EQ(memory.states, 1000 * 2048);
  EXPECT_EQ(memory.full_attention, int64_t{1000} * 512 * 1024);
  EXPECT_EQ(memory.kept, memory.full_attention);
  const ContextMemory in_8_bits = context_memory(decoder, 1024, 32, 1024, 2, true);
  const int64_t halved = int64_t{1024} * 256 * 1024;  // and a scale a key, and one a column of 64 rows' values
  EXPECT_EQ(in_8_bits.kept, halved + int64_t{32} * 32 * (1024 + 16 * 128) * 4);
}

TEST(MemoryPlan, WithoutAnAdapterTheContextTakesNothingOfItsOwn) {
  model::DecoderConfig decoder;
  decoder.layers = 2;
  decoder.heads = decoder.groups = 2;
  decoder.head_width = 8;
  const ContextMemory memory = context_memory(decoder, 0, 0, 100, 2, true);
  EXPECT_EQ(memory.states, 0);
  EXPECT_EQ(memory.kept, 0);
  EXPECT_GT(memory.full_attention, 0);
}

}  // namespace
}  // namespace cepe::cli
