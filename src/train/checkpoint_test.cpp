#include "train/checkpoint.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <random>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint_states.h"
#include "crashing_files.h"
#include "expect_error.h"
#include "formats/checkpoint.h"

namespace cepe::train {
namespace {

using base::ErrorCode;
using test::CrashingFiles;

class Checkpoints : public testing::Test {
 protected:
  base::Path folder = std::filesystem::temp_directory_path() / ("cepe-checkpoints-" + std::to_string(::getpid()));
  void SetUp() override { std::filesystem::remove_all(folder); }
  void TearDown() override {
    std::filesystem::remove_all(folder);
    base::set_log_level(base::LogLevel::notice);
  }

  std::set<std::string> names() const {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) found.insert(entry.path().filename());
    return found;
  }
};

constexpr const char* files_of_a_step[] = {"tensors.safetensors", "state.json", "manifest.json"};

TEST_F(Checkpoints, WhatWasSavedComesBackBitForBit) {
  CheckpointState content;
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                                    at::kChar, at::kByte, at::kBool}) {
    content.tensors.emplace_back(at::toString(type), test::random_bits({3, 5}, type, 1));
  }
  content.tensors.emplace_back("a number", test::random_bits({}, at::kFloat, 2));
  content.tensors.emplace_back("nothing", test::random_bits({4, 0}, at::kLong, 3));
  content.tensors.emplace_back("large", test::random_bits({300, 1001}, at::kDouble, 4));
  content.state = {{"data", {{"position", int64_t{1} << 60}, {"seed", ~uint64_t{0}}}},
                   {"rates", {0.1, 1e-300, -0.0, 1.0 / 3}},
                   {"text", "\xc3\xa4\n\"\\"}};
  CheckpointFolder(folder, 1).save(0, content);

  const auto found = CheckpointFolder(folder, 1).load_newest();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->first, 0);
  EXPECT_TRUE(test::same(found->second, content));
}

TEST_F(Checkpoints, TensorsThatAreNotContiguousComeBackInTheirOrder) {
  const at::Tensor whole = test::random_bits({6, 8}, at::kInt, 1);
  const at::Tensor trained = at::zeros({2, 3}).requires_grad_(true);
  CheckpointFolder(folder, 1).save(1, {{{"part", whole.t().slice(0, 2, 5)}, {"trained", trained}}, {}});
  const auto found = CheckpointFolder(folder, 1).load_newest();
  ASSERT_TRUE(found);
  EXPECT_TRUE(test::same_bits(found->second.tensors.at(0).second, whole.t().slice(0, 2, 5).contiguous()));
  EXPECT_TRUE(test::same_bits(found->second.tensors.at(1).second, at::zeros({2, 3})));
}

TEST_F(Checkpoints, TheTensorsAreAnOrdinarySafetensorsFile) {
  const CheckpointState content = test::state_of(1200);
  CheckpointFolder(folder, 1).save(1200, content);
  EXPECT_EQ(names(), std::set<std::string>{"step-00001200"});
  const auto file = formats::Checkpoint::open(folder / "step-00001200" / "tensors.safetensors");
  EXPECT_EQ(file.names(), (std::vector<std::string>{"count", "moment", "weight"}));
  EXPECT_EQ(file.at("weight").shape, (std::vector<int64_t>{5, 7}));
  EXPECT_EQ(file.at("moment").type, formats::DType::bfloat16);
}

TEST_F(Checkpoints, AFolderWithoutAnyHasNone) {
  CheckpointFolder checkpoints(folder / "made" / "on the way", 3);
  EXPECT_FALSE(checkpoints.newest());
  EXPECT_FALSE(checkpoints.load_newest());
  EXPECT_TRUE(checkpoints.steps().empty());
}

TEST_F(Checkpoints, TheNewestAreKeptAndWhatIsNotOursStays) {
  std::filesystem::create_directories(folder / "step-7");
  base::replace_file(folder / "notes.partial", "mine");
  CheckpointFolder checkpoints(folder, 3);
  for (int64_t step = 10; step <= 60; step += 10) checkpoints.save(step, test::state_of(step));
  EXPECT_EQ(checkpoints.steps(), (std::vector<int64_t>{40, 50, 60}));
  EXPECT_EQ(checkpoints.newest(), 60);
  EXPECT_EQ(names(),
            (std::set<std::string>{"step-00000040", "step-00000050", "step-00000060", "step-7", "notes.partial"}));
  CheckpointFolder(folder, 1).save(123456789, test::state_of(1));
  EXPECT_EQ(names(), (std::set<std::string>{"step-123456789", "step-7", "notes.partial"}));
}

TEST_F(Checkpoints, TheSameStepOnceMoreReplacesIt) {
  CheckpointFolder checkpoints(folder, 2);
  checkpoints.save(5, test::state_of(5, 1));
  checkpoints.save(5, test::state_of(5, 2));
  EXPECT_TRUE(test::same(checkpoints.load_newest().value().second, test::state_of(5, 2)));
  EXPECT_EQ(names(), std::set<std::string>{"step-00000005"});
}

TEST_F(Checkpoints, WhatACrashLeftIsRemovedWithANoticeOrPutBack) {
  CheckpointFolder(folder, 2).save(5, test::state_of(5));
  std::filesystem::create_directories(folder / "step-00000006.partial");
  base::replace_file(folder / "step-00000006.partial" / "state.json", "{");
  std::filesystem::create_directories(folder / "step-00000003.removed");
  std::filesystem::rename(folder / "step-00000005", folder / "step-00000005.replaced");

  testing::internal::CaptureStderr();
  CheckpointFolder checkpoints(folder, 2);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("step-00000006.partial: removing"), std::string::npos) << said;
  EXPECT_EQ(names(), std::set<std::string>{"step-00000005"});
  EXPECT_TRUE(test::same(checkpoints.load_newest().value().second, test::state_of(5)));
}

// Every byte of every file, a random bit of it.
TEST_F(Checkpoints, AFlippedBitIsNoticedAndTheOneBeforeIsTaken) {
  base::set_log_level(base::LogLevel::error);
  CrashingFiles files(1);
  CheckpointFolder writer("/run", 2, files);
  writer.save(1, test::state_of(1));
  writer.save(2, test::state_of(2));
  std::mt19937 random(1);
  for (const char* name : files_of_a_step) {
    std::string& content = files.content(base::Path("/run/step-00000002") / name);
    ASSERT_GT(content.size(), 20u);
    for (size_t i = 0; i < content.size(); ++i) {
      const char good = content[i];
      content[i] = static_cast<char>(good ^ (1 << random() % 8));
      const auto found = CheckpointFolder("/run", 2, files).load_newest();
      ASSERT_TRUE(found && found->first == 1) << name << ", byte " << i;
      ASSERT_TRUE(test::same(found->second, test::state_of(1)));
      content[i] = good;
    }
  }
  EXPECT_EQ(CheckpointFolder("/run", 2, files).load_newest().value().first, 2) << "mended again";
}

TEST_F(Checkpoints, ADamagedOneIsNamedInAWarningWithItsFile) {
  for (const char* name : files_of_a_step) {
    for (const bool gone : {false, true}) {
      std::filesystem::remove_all(folder);
      CheckpointFolder checkpoints(folder, 2);
      checkpoints.save(1, test::state_of(1));
      checkpoints.save(2, test::state_of(2));
      const base::Path file = folder / "step-00000002" / name;
      if (gone) {
        std::filesystem::remove(file);
      } else {
        std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
      }
      testing::internal::CaptureStderr();
      const auto found = checkpoints.load_newest();
      const std::string said = testing::internal::GetCapturedStderr();
      EXPECT_EQ(found.value().first, 1);
      EXPECT_NE(said.find("warning: the checkpoint of step 2 is damaged"), std::string::npos) << said;
      EXPECT_NE(said.find(file.string()), std::string::npos) << said;
    }
  }
}

TEST_F(Checkpoints, ADamagedOneMakesWayForTheRunThatGoesOnBeforeIt) {
  base::set_log_level(base::LogLevel::error);
  CrashingFiles files(1);
  CheckpointFolder("/run", 2, files).save(1, test::state_of(1));
  CheckpointFolder("/run", 2, files).save(9, test::state_of(9));
  files.content("/run/step-00000009/state.json")[0] = '[';
  CheckpointFolder checkpoints("/run", 2, files);
  EXPECT_EQ(checkpoints.load_newest().value().first, 1);
  checkpoints.save(5, test::state_of(5));
  EXPECT_EQ(checkpoints.steps(), (std::vector<int64_t>{1, 5}));
}

TEST_F(Checkpoints, ASaveBeforeOneThatStandsIsRefused) {
  CheckpointFolder checkpoints(folder, 2);
  checkpoints.save(9, test::state_of(9));
  test::expect_error(ErrorCode::invalid_argument, "holds step 9", [&] { checkpoints.save(5, test::state_of(5)); });
  EXPECT_EQ(checkpoints.steps(), std::vector<int64_t>{9});
}

TEST_F(Checkpoints, WhereAllAreDamagedThatIsAnErrorAndNotAFreshStart) {
  base::set_log_level(base::LogLevel::error);
  CrashingFiles files(1);
  CheckpointFolder checkpoints("/run", 2, files);
  checkpoints.save(1, test::state_of(1));
  files.content("/run/step-00000001/tensors.safetensors").pop_back();
  test::expect_error(ErrorCode::corrupt, "/run", [&] { checkpoints.load_newest(); });
}

TEST_F(Checkpoints, WhatCannotBeSavedIsNamedAndTheEarlierOneStands) {
  CheckpointFolder checkpoints(folder, 1);
  checkpoints.save(1, test::state_of(1));
  const at::Tensor good = at::zeros({2});
  const struct {
    const char* says;
    CheckpointState content;
    ErrorCode code;
  } table[] = {
      {"tensor 'w' is not set", {{{"w", at::Tensor()}}, {}}, ErrorCode::invalid_argument},
      {"tensor 'w': a checkpoint cannot hold the type ComplexFloat",
       {{{"w", at::zeros({2}, at::kComplexFloat)}}, {}},
       ErrorCode::unsupported},
      {"tensor 'w' is not dense", {{{"w", good.to_sparse()}}, {}}, ErrorCode::unsupported},
      {"'w' occurs twice", {{{"w", good}, {"w", good}}, {}}, ErrorCode::invalid_argument},
      {"not UTF-8", {{{"\xff", good}}, {}}, ErrorCode::invalid_argument},
      {"the state is no JSON", {{{"w", good}}, {{"text", "\xff"}}}, ErrorCode::invalid_argument},
  };
  for (const auto& bad : table) {
    test::expect_error(bad.code, bad.says, [&] { checkpoints.save(2, bad.content); });
  }
  test::expect_error(ErrorCode::invalid_argument, "0 or more", [&] { checkpoints.save(-1, test::state_of(1)); });
  test::expect_error(ErrorCode::invalid_argument, "1 or more", [&] { CheckpointFolder none(folder, 0); });
  EXPECT_EQ(names(), std::set<std::string>{"step-00000001"});
  EXPECT_TRUE(test::same(checkpoints.load_newest().value().second, test::state_of(1)));
}

// The operating system's own refusal, through a limit on the size of files.
TEST_F(Checkpoints, AWriteThatTheSystemRefusesIsAPlainErrorAndTheEarlierOneStands) {
  CheckpointFolder checkpoints(folder, 1);
  checkpoints.save(1, test::state_of(1));
  const CheckpointState large{{{"w", at::zeros({1 << 20})}}, {}};
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit low{rlim_t{1} << 20, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
  test::expect_error(ErrorCode::io, "cannot write: File too large", [&] { checkpoints.save(2, large); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(names(), std::set<std::string>{"step-00000001"});
  checkpoints.save(2, large);
  EXPECT_EQ(checkpoints.load_newest().value().first, 2);
}

TEST_F(Checkpoints, AFileInPlaceOfTheFolderIsAPlainError) {
  base::replace_file(folder, "a file");
  test::expect_error(ErrorCode::io, folder.string(), [&] { CheckpointFolder checkpoints(folder, 1); });
  test::expect_error(ErrorCode::io, folder.string(), [&] { CheckpointFolder checkpoints(folder / "below", 1); });
}

}  // namespace
}  // namespace cepe::train
