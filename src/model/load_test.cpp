#include "model/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>

#include "base/error.h"
#include "base/interrupt.h"
#include "expect_error.h"
#include "model/initialise_random.h"
#include "model/save.h"
#include "saved_models.h"
#include "temporary_folder.h"
#include "tiny_models.h"

namespace cepe::model {
namespace {

using testing::ElementsAre;

struct LoadedFolder : testing::Test {
  test::TemporaryFolder folder;

  LoadedFolder() { test::save_parts(folder, test::tiny_model(5)); }
  ModelSource open() const { return open_model(folder / "decoder"); }
  // A change of config.json's fields.
  void configure(const base::Json& fields) {
    base::Json config = base::parse_json(test::content_of(folder / "decoder/config.json"), "config.json");
    config.update(fields);
    folder.write("decoder/config.json", config.dump());
  }
  void write_generation_config(const std::string& text) { folder.write("decoder/generation_config.json", text); }
};

TEST_F(LoadedFolder, EndTokensOfTheGenerationConfigAddToThoseOfTheModels) {
  configure({{"eos_token_id", 3}});
  EXPECT_THAT(open().decoder.eos, ElementsAre(3));
  write_generation_config(R"({"eos_token_id": [3, 5, 1000000], "temperature": 0.6})");
  EXPECT_THAT(open().decoder.eos, ElementsAre(3, 5));
  write_generation_config(R"({"eos_token_id": 7})");
  EXPECT_THAT(open().decoder.eos, ElementsAre(3, 7));
  for (const char* silent : {"{}", R"({"eos_token_id": null})"}) {
    write_generation_config(silent);
    EXPECT_THAT(open().decoder.eos, ElementsAre(3)) << silent;
  }
}

TEST_F(LoadedFolder, LoadingStopsAtCtrlC) {
  base::catch_interrupts();
  std::raise(SIGINT);
  EXPECT_THROW(load_model(open(), {}), base::Interrupted);
  EXPECT_TRUE(base::forget_interrupt());
  EXPECT_FALSE(load_model(open(), {}).decoder.layers.empty());
}

TEST_F(LoadedFolder, AnEncoderOfStageMlmIsNoModel) {
  configure({{"architectures", {"LlamaForCausalLM"}}});
  open();
  save_masked_language_model(folder / "decoder",
                             random_masked_language_model(test::tiny_model(5).adapter->encoder.config, 1));
  test::expect_error(base::ErrorCode::invalid_argument, "an encoder of stage mlm", [&] { open(); });
}

TEST_F(LoadedFolder, ABrokenGenerationConfigIsAnErrorThatNamesIt) {
  for (const char* broken : {"[]", "{", R"({"eos_token_id": "<end>"})"}) {
    write_generation_config(broken);
    test::expect_error(base::ErrorCode::corrupt, "generation_config.json", [&] { open(); });
  }
  test::expect_error(base::ErrorCode::corrupt, "'eos_token_id'", [&] { open(); });
}

}  // namespace
}  // namespace cepe::model
