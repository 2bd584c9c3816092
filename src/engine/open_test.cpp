#include "engine/open.h"

#include <gtest/gtest.h>

#include "temporary_folder.h"

namespace cepe::engine {
namespace {

// A folder of shipped adapters as an installed library has it.
class Open : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(shipped());
    options.models_folder = folder.path();
  }
  base::Path shipped() const { return folder.path() / "smollm2-135m-instruct-cepe"; }

  test::TemporaryFolder folder;
  OpenOptions options;
};

TEST_F(Open, TheDefaultModelGetsTheAdapterThatShips) { EXPECT_EQ(find_adapter(options), shipped()); }

TEST_F(Open, NoOtherModelGetsIt) {
  options.model = "org/name";
  EXPECT_EQ(find_adapter(options), std::nullopt);
}

TEST_F(Open, AnAdapterThatIsNamedIsTakenAndNoneIsNone) {
  options.adapter = "mine";
  EXPECT_EQ(find_adapter(options), base::Path("mine"));
  options.adapter = "none";
  EXPECT_EQ(find_adapter(options), std::nullopt);
}

TEST_F(Open, NothingShippedIsNoAdapter) {
  options.models_folder = folder.path() / "elsewhere";
  EXPECT_EQ(find_adapter(options), std::nullopt);
}

}  // namespace
}  // namespace cepe::engine
