#include "cli/attribution.h"

#include <gtest/gtest.h>

#include "letter_tokenizer.h"

namespace cepe::cli {
namespace {

const test::LetterTokenizer tokenizer;

TEST(Attribution, AddsUpChunksByDocumentAndMeansOverTokens) {
  const std::vector<context::Chunk> chunks = {
      {tokenizer.encode("first", {}), 0}, {tokenizer.encode("again", {}), 0}, {tokenizer.encode("other", {}), 1}};
  engine::Completion completion;
  completion.page_masses = {{0.5f, 0.25f, 0.25f}, {0.125f, 0.125f, 0.5f, 0.25f}};  // a window slid between them
  const Attribution found = attribution_of(completion, chunks, {{"a.txt", ""}, {"b.txt", ""}}, tokenizer);
  EXPECT_EQ(found.documents, (std::vector<std::string>{"a.txt", "b.txt", ""}));
  EXPECT_EQ(found.document_masses, (std::vector<double>{0.5, 0.375, 0.125}));
  EXPECT_EQ(found.by_token, (std::vector<std::vector<double>>{{0.75, 0.25, 0}, {0.25, 0.5, 0.25}}));
  ASSERT_EQ(found.chunks.size(), 4U);
  EXPECT_EQ(found.chunks[1].document, 0);
  EXPECT_EQ(found.chunks[1].chunk, 1);
  EXPECT_EQ(found.chunks[1].text, "again");
  EXPECT_EQ(found.chunks[3].document, 2);
  EXPECT_DOUBLE_EQ(found.chunks[0].mass, 0.3125);
  const std::string text = attribution_text(found);
  EXPECT_LT(text.find("50.0 %  a.txt"), text.find("37.5 %  b.txt")) << text;
  EXPECT_NE(text.find("37.5 %  b.txt, chunk 1: other"), std::string::npos) << text;
  EXPECT_TRUE(attribution_json(found)["documents"][2]["document"].is_null());
}

TEST(Attribution, TokensBeforeThereWasAContextDoNotCount) {
  engine::Completion completion;
  completion.page_masses = {{}, {}, {1.0f}, {0.25f, 0.75f}};  // the first window was full after two tokens
  const Attribution found = attribution_of(completion, {}, {}, tokenizer);
  EXPECT_EQ(found.document_masses, std::vector<double>{1});
  EXPECT_EQ(found.by_token, (std::vector<std::vector<double>>{{0}, {0}, {1}, {1}}));
  ASSERT_EQ(found.chunks.size(), 2U);
  EXPECT_DOUBLE_EQ(found.chunks[0].mass, 0.625);
}

TEST(Attribution, OfManyDocumentsThoseWithMostAreTold) {
  engine::Completion completion;
  completion.page_masses = {std::vector<float>(100, 0.01f)};
  completion.page_masses[0][90] = 0.02f;
  completion.page_masses[0][0] = 0;
  std::vector<Document> documents;
  std::vector<context::Chunk> chunks;
  for (int64_t i = 0; i < 100; ++i) {
    documents.push_back({std::to_string(i) + ".txt", ""});
    chunks.push_back({tokenizer.encode("x", {}), i});
  }
  const std::string text = attribution_text(attribution_of(completion, chunks, documents, tokenizer));
  EXPECT_NE(text.find("leaned on\n   2.0 %  90.txt\n"), std::string::npos) << text;
  EXPECT_NE(text.find("  79.0 %  80 further documents together\n"), std::string::npos) << text;
}

TEST(Attribution, WithoutAContextThereIsNone) {
  engine::Completion completion;
  completion.page_masses = {{}, {}};
  EXPECT_EQ(attribution_text(attribution_of(completion, {}, {}, tokenizer)), "leaned on no context\n");
}

}  // namespace
}  // namespace cepe::cli
