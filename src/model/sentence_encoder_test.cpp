#include "model/sentence_encoder.h"

#include <gtest/gtest.h>

#include "expect_error.h"
#include "temporary_folder.h"

namespace cepe::model {
namespace {

TEST(SentenceEncoderConfig, AnUnknownActivationIsRefusedWithItsFileAndField) {
  const test::TemporaryFolder folder;
  folder.write("config.json", R"({"model_type": "bert", "vocab_size": 8, "hidden_size": 4,
    "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 8,
    "hidden_act": "tanhexp"})");
  test::expect_error(base::ErrorCode::unsupported, "config.json: field 'hidden_act': activation 'tanhexp'",
                     [&] { load_sentence_encoder(folder.path(), {}); });
}

}  // namespace
}  // namespace cepe::model
