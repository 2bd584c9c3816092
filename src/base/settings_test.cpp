#include "base/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace cepe::base {
namespace {

struct Optimiser {
  double rate = 3e-4;
  std::string schedule = "cosine";
  std::vector<double> betas = {0.9, 0.999};
};
template <class Visitor>
void visit(Visitor& visitor, Optimiser& optimiser) {
  visitor.field("rate", optimiser.rate, {.help = "peak learning rate", .least = 0, .most = 1});
  visitor.field("schedule", optimiser.schedule, {.help = "how it decays", .choices = {"cosine", "constant"}});
  visitor.field("betas", optimiser.betas);
}

struct Stage {
  std::string name;
  int32_t steps = 10;
};
template <class Visitor>
void visit(Visitor& visitor, Stage& stage) {
  visitor.field("name", stage.name, {.help = "what it is called"});
  visitor.field("steps", stage.steps, {.least = 1});
}
void validate(const Stage& stage) {
  if (stage.name == "bad") throw Error(ErrorCode::invalid_argument, "no stage is called bad");
}

struct Recipe {
  int64_t seed = 0;
  bool resume = false;
  std::optional<std::string> output;
  Optimiser optimiser;
  std::vector<Stage> stages;
};
template <class Visitor>
void visit(Visitor& visitor, Recipe& recipe) {
  visitor.field("seed", recipe.seed);
  visitor.field("resume", recipe.resume);
  visitor.field("output", recipe.output);
  visitor.field("optimiser", recipe.optimiser);
  visitor.field("stages", recipe.stages);
}

Recipe read(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  Recipe recipe;
  read_settings(yaml, "recipe.yaml", overrides, recipe);
  return recipe;
}

std::string error_of(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  try {
    read(yaml, overrides);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Settings, ANumberHasOneSign) {
  EXPECT_EQ(read("seed: +5").seed, 5);
  EXPECT_NE(error_of("seed: +-5"), "");
  EXPECT_NE(error_of("optimiser:\n  rate: +-0.0"), "");
}

TEST(Settings, NamedFieldsAreSetAndOthersKeepTheirDefaults) {
  const Recipe recipe = read(
      "seed: 20_000\noptimiser:\n  rate: 1e-3\n  betas: [0.5]\nstages:\n- {name: warm-up, steps: 3}\n- name: "
      "'7'\noutput: x\n");
  EXPECT_EQ(recipe.seed, 20000);
  EXPECT_FALSE(recipe.resume);
  EXPECT_DOUBLE_EQ(recipe.optimiser.rate, 1e-3);
  EXPECT_EQ(recipe.optimiser.schedule, "cosine");
  EXPECT_EQ(recipe.optimiser.betas, std::vector<double>{0.5});
  ASSERT_EQ(recipe.stages.size(), 2u);
  EXPECT_EQ(recipe.stages[0].steps, 3);
  EXPECT_EQ(recipe.stages[1].name, "7");
  EXPECT_EQ(recipe.output, "x");
  EXPECT_EQ(read("").seed, 0);
}

TEST(Settings, UnknownKeysNameTheNearestKnownOneWithFileAndLine) {
  EXPECT_EQ(error_of("seed: 1\noptimiser:\n  shedule: cosine\n"),
            "recipe.yaml, line 3: 'optimiser.shedule' is no field; did you mean 'schedule'?");
  EXPECT_THAT(error_of("zzzzzzzzzz: 1"), testing::HasSubstr("known are: seed resume output optimiser stages"));
}

TEST(Settings, TypesAndRangesAreChecked) {
  using testing::HasSubstr;
  EXPECT_THAT(error_of("seed: 1.5"), HasSubstr("line 1: 'seed' must be an integer, found '1.5'"));
  EXPECT_THAT(error_of("seed: '1'"), HasSubstr("must be an integer"));
  EXPECT_THAT(error_of("seed: 99999999999999999999"), HasSubstr("must be an integer"));
  EXPECT_THAT(error_of("resume: yes"), HasSubstr("must be true or false, found 'yes'"));
  EXPECT_THAT(error_of("optimiser: {rate: 2}"), HasSubstr("'optimiser.rate' must be a number (0 to 1), found '2'"));
  EXPECT_THAT(error_of("optimiser: {rate: nan}"), HasSubstr("must be a number"));
  EXPECT_THAT(error_of("optimiser: {schedule: linear}"), HasSubstr("(one of cosine, constant), found 'linear'"));
  EXPECT_THAT(error_of("optimiser: 3"), HasSubstr("must be a group of fields"));
  EXPECT_THAT(error_of("stages: {a: 1}"), HasSubstr("'stages' must be a list, found a group of fields"));
  EXPECT_THAT(error_of("stages:\n- name: a\n- steps: 0\n"), HasSubstr("line 3: 'stages.1.steps' must be"));
  EXPECT_THAT(error_of("- 1"), HasSubstr("must be a group of fields"));
  EXPECT_THAT(error_of("stages: [{name: bad}]"), HasSubstr("'stages.0': no stage is called bad"));
}

TEST(Settings, OverridesWinOverTheFile) {
  const Recipe recipe =
      read("seed: 1\nstages: [{name: a}]\noutput: x\n",
           {"seed=2", "optimiser.rate=0.5", "stages.0.steps=9", "output=null", "optimiser.betas=[0.1, 0.2]"});
  EXPECT_EQ(recipe.seed, 2);
  EXPECT_DOUBLE_EQ(recipe.optimiser.rate, 0.5);
  EXPECT_EQ(recipe.stages[0].steps, 9);
  EXPECT_EQ(recipe.output, std::nullopt);
  EXPECT_EQ(recipe.optimiser.betas.size(), 2u);
  EXPECT_EQ(read("", {"output="}).output, "");
  EXPECT_THAT(error_of("", {"optimiser.rat=1"}), testing::HasSubstr("command line, 'optimiser.rat=1'"));
  for (const char* bad : {"seed", "=1", "a..b=1", "stages.0.steps=1", "seed.x=1"}) {
    EXPECT_NE(error_of("seed: 1", {bad}), "") << bad;
  }
}

TEST(Settings, HostileYamlIsRefusedQuickly) {
  using testing::HasSubstr;
  EXPECT_THAT(error_of("a: 1\noutput: \"a\\0b\"\n"), HasSubstr("line 2: 'a\\x00b' holds a NUL character"));
  EXPECT_THAT(error_of("a: &a [1, 2]\nb: &b [*a, *a]\nc: [*b, *b]\n"), HasSubstr("line 2: aliases"));
  std::string deep;
  for (int i = 0; i < 20; ++i) deep += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  EXPECT_THAT(error_of(deep + std::string(20, ' ') + "1"), HasSubstr("nested deeper"));
  EXPECT_NE(error_of(std::string(100000, '[')), "");
  EXPECT_THAT(error_of("seed: 1\nseed: 2\n"), HasSubstr("line 2: key 'seed' occurs twice"));
  EXPECT_THAT(error_of("seed: !!python/object 1"), HasSubstr("tags"));
  EXPECT_THAT(error_of("seed: [1"), HasSubstr("not valid YAML"));
  EXPECT_THAT(error_of("seed: 1\n---\nseed: 2\n"), HasSubstr("more than one"));
  EXPECT_THAT(error_of(std::string(2 << 20, ' ')), HasSubstr("bytes of settings"));
  EXPECT_THAT(error_of("? [a]\n: 1\n"), HasSubstr("a key must be plain text"));
}

TEST(Settings, PrintedSettingsReadBackTheSame) {
  const Recipe recipe =
      read("output: \"a\\n'b\\\": #c\"\nstages: [{name: x}, {name: y, steps: 2}]\noptimiser: {rate: 0.1}\n");
  for (const bool with_help : {false, true}) {
    const std::string printed = print_settings(recipe, with_help);
    SCOPED_TRACE(printed);
    EXPECT_EQ(error_of(printed), "");
    EXPECT_EQ(print_settings(read(printed), with_help), printed);
    EXPECT_EQ(read(printed).output, recipe.output);
    EXPECT_EQ(printed.find("# peak learning rate (0 to 1)") != std::string::npos, with_help) << printed;
  }
}

}  // namespace
}  // namespace cepe::base
