// Recipes come from strangers too: whatever one holds is read or refused, and what was read prints and reads back.
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "base/settings.h"

namespace {

struct Stage {
  std::string name;
  int32_t steps = 10;
};
template <class Visitor>
void visit(Visitor& visitor, Stage& stage) {
  visitor.field("name", stage.name, {.help = "name"});
  visitor.field("steps", stage.steps, {.least = 1});
}

struct Recipe {
  int64_t seed = 0;
  bool resume = false;
  double rate = 1e-3;
  std::string model;
  std::optional<std::string> output;
  std::vector<int64_t> layers;
  std::vector<Stage> stages;
};
template <class Visitor>
void visit(Visitor& visitor, Recipe& recipe) {
  visitor.field("seed", recipe.seed);
  visitor.field("resume", recipe.resume);
  visitor.field("rate", recipe.rate, {.least = 0, .most = 1});
  visitor.field("model", recipe.model);
  visitor.field("output", recipe.output);
  visitor.field("layers", recipe.layers);
  visitor.field("stages", recipe.stages);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view yaml = input.substr(0, input.find('\0'));
  std::vector<std::string> overrides;
  if (yaml.size() < size) overrides.emplace_back(input.substr(yaml.size() + 1));
  Recipe recipe;
  try {
    cepe::base::read_settings(yaml, "recipe", overrides, recipe);
  } catch (const cepe::base::Error&) {
    return 0;
  }
  const std::string printed = cepe::base::print_settings(recipe, true);
  Recipe again;
  cepe::base::read_settings(printed, "printed", {}, again);
  if (cepe::base::print_settings(again, true) != printed) std::abort();
  return 0;
}
