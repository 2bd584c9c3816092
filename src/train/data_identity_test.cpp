// What a run's data is told apart by.
#include "train/data_identity.h"

#include <gtest/gtest.h>

#include "data/tokenizer_fingerprint.h"
#include "expect_error.h"
#include "sample_folder.h"
#include "training_runs.h"

namespace cepe::train {
namespace {

using base::ErrorCode;
using test::expect_error;

const base::Path tokenizers = "tests/golden/tokenizers";

class CorpusOfATokenizer : public test::QuietTrainingRuns {
 protected:
  data::TokenCorpus corpus_of(const std::string& name) const {
    data::CorpusWriterSettings settings;
    settings.vocabulary = 1000;
    settings.tokenizer = data::tokenizer_fingerprint(*text::load_tokenizer(tokenizers / name));
    settings.model = name;
    data::CorpusWriter writer(folder / name, settings);
    writer.append({"document", "", ""}, test::Ids{1, 2, 3});
    writer.finish();
    return data::TokenCorpus::open(folder / name);
  }
  Recipe with_decoder(const base::Path& model) const {
    Recipe recipe = recipe_of("run");
    recipe.decoder.config = "";
    recipe.decoder.model = model.string();
    return recipe;
  }
};

TEST_F(CorpusOfATokenizer, IsRefusedForADecoderOfAnotherOne) {
  const data::TokenCorpus corpus = corpus_of("gpt2-like");
  check_tokenizer(corpus, with_decoder(tokenizers / "gpt2-like"), {});
  expect_error(ErrorCode::mismatch, "field 'tokenizer': the corpus was made with another tokenizer (model gpt2-like)",
               [&] { check_tokenizer(corpus, with_decoder(tokenizers / "llama2-like"), {}); });
}

TEST_F(CorpusOfATokenizer, IsTakenWhereTheDecoderHasNone) {
  const data::TokenCorpus corpus = corpus_of("gpt2-like");
  check_tokenizer(corpus, recipe_of("run"), {});                  // made from a config
  check_tokenizer(corpus, with_decoder(folder / "decoder"), {});  // without tokenizer files
  Recipe masked = with_decoder(tokenizers / "llama2-like");
  masked.stage = "mlm";
  check_tokenizer(corpus, masked, {});  // no decoder takes part
}

TEST(IdentityOfSamples, FollowsTheIndexesOfAllTheirFolders) {
  const test::TemporaryFolder folder;
  const auto write = [&](const std::string& name, int count) {
    test::Columns columns;
    for (int i = 0; i < count; ++i) columns["token_ids"].push_back(test::pickled_ids({1, 2, 3}));
    std::filesystem::remove_all(folder / name);
    test::write_sample_folder(folder / name, columns);
  };
  write("texts/a", 2);
  write("logits", 2);
  Recipe recipe;
  recipe.data.samples = (folder / "texts").string();
  recipe.data.stored_logits = (folder / "logits").string();
  const std::string before = identity_of_data(recipe, std::nullopt);
  write("texts/a", 2);
  EXPECT_EQ(identity_of_data(recipe, std::nullopt), before);
  write("logits", 3);
  const std::string more = identity_of_data(recipe, std::nullopt);
  EXPECT_NE(more, before);
  write("texts/b", 2);
  EXPECT_NE(identity_of_data(recipe, std::nullopt), more);
}

}  // namespace
}  // namespace cepe::train
