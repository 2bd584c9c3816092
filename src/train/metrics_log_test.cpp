#include "train/metrics_log.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <limits>

#include "expect_error.h"

namespace cepe::train {
namespace {

using base::ErrorCode;

class Metrics : public testing::Test {
 protected:
  base::Path folder = std::filesystem::temp_directory_path() / ("cepe-metrics-" + std::to_string(::getpid()));
  base::Path file = folder / "metrics.jsonl";
  void SetUp() override { std::filesystem::create_directories(folder); }
  void TearDown() override { std::filesystem::remove_all(folder); }

  // What a run leaves that goes on after `step` with what `content` holds.
  std::string resumed(const std::string& content, int64_t step) {
    base::replace_file(file, content);
    MetricsLog(file, step).write(step + 1, {{"new", true}});
    const std::string text = base::read_file(file);
    const std::string added = R"({"step":)" + std::to_string(step + 1) + R"(,"new":true})" + "\n";
    EXPECT_TRUE(text.ends_with(added)) << text;
    return text.substr(0, text.size() - added.size());
  }
};

TEST_F(Metrics, EachLineIsThereAsSoonAsItIsWrittenWithItsStepFirst) {
  MetricsLog log(file, -1);
  log.write(1, {{"loss", 2.5}, {"accuracy", 0.25}});
  EXPECT_EQ(base::read_file(file), "{\"step\":1,\"loss\":2.5,\"accuracy\":0.25}\n");
  log.write(2, base::OrderedJson::object());
  EXPECT_EQ(base::read_file(file), "{\"step\":1,\"loss\":2.5,\"accuracy\":0.25}\n{\"step\":2}\n");
}

TEST_F(Metrics, WhatIsNoNumberIsWrittenAsNull) {
  const double infinity = std::numeric_limits<double>::infinity();
  MetricsLog(file, -1).write(
      1, {{"loss", std::nan("")}, {"norms", {1, -infinity}}, {"by set", {{"a", infinity}}}, {"text", "a\xff"}});
  EXPECT_EQ(base::read_file(file),
            "{\"step\":1,\"loss\":null,\"norms\":[1,null],\"by set\":{\"a\":null},\"text\":\"a\xef\xbf\xbd\"}\n");
}

TEST_F(Metrics, AResumedRunCutsOffLaterStepsAndGoesOn) {
  const std::string two = "{\"step\":5}\n{\"step\":10}\n", more = "{\"step\":10,\"again\":1}\n";
  EXPECT_EQ(resumed(two + more + "{\"step\":15}\n{\"step\":20}\n", 10), two + more);
  EXPECT_EQ(resumed(two, 10), two);
  EXPECT_EQ(resumed(two, 1000), two);
  EXPECT_EQ(resumed(two, 7), "{\"step\":5}\n");
  EXPECT_EQ(resumed(two, 0), "");
  EXPECT_EQ(resumed("", 3), "");
}

TEST_F(Metrics, ATornEndIsCutOff) {
  const std::string good = "{\"step\":5}\n";
  EXPECT_EQ(resumed(good + "{\"step\":6", 10), good);
  EXPECT_EQ(resumed(good + "{\"step\":6}", 10), good) << "without the end of its line it may be the half of a number";
  EXPECT_EQ(resumed(good + std::string(700, '\0'), 10), good) << "blocks that an outage kept from being written";
  EXPECT_EQ(resumed(good + std::string(3, '\0') + "\n{\"st", 10), good);
  EXPECT_EQ(resumed("{\"step\":", 10), "");
}

TEST_F(Metrics, AFreshRunBeginsAnEmptyFile) {
  base::replace_file(file, "{\"step\":0}\nanything\n{\"step\":1}\n");
  MetricsLog log(file, -1);
  EXPECT_EQ(base::read_file(file), "");
}

TEST_F(Metrics, ABrokenLineAmongGoodOnesIsNamedAndNothingIsLost) {
  for (const char* line : {"{\"step\":", "[1]", "{\"loss\":1}", "{\"step\":1.5}", ""}) {
    const std::string content = "{\"step\":1}\n" + std::string(line) + "\n{\"step\":3}\n";
    base::replace_file(file, content);
    test::expect_error(ErrorCode::corrupt, "metrics.jsonl: line 2", [&] { MetricsLog log(file, 9); });
    EXPECT_EQ(base::read_file(file), content);
  }
}

TEST_F(Metrics, ALineThatTheSystemRefusesIsAnErrorAndLeavesNoHalf) {
  MetricsLog log(file, -1);
  log.write(1, {{"text", std::string(100, 'a')}});
  const std::string before = base::read_file(file);
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit low{before.size() + 20, limit.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
  test::expect_error(ErrorCode::io, "cannot write: File too large", [&] {
    log.write(2, {{"text", std::string(100, 'b')}});
  });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(base::read_file(file), before);
  log.write(3, base::OrderedJson::object());
  EXPECT_EQ(base::read_file(file), before + "{\"step\":3}\n") << "it goes on where the last good line ended";
}

TEST_F(Metrics, ValuesThatAreNoneAndPlacesThatAreNotThereAreRefused) {
  MetricsLog log(file, -1);
  test::expect_error(ErrorCode::invalid_argument, "step 4", [&] { log.write(4, {{"step", 5}}); });
  test::expect_error(ErrorCode::invalid_argument, "step 4", [&] { log.write(4, base::OrderedJson::array({1})); });
  test::expect_error(ErrorCode::not_found, "nowhere", [&] { MetricsLog none(folder / "nowhere" / "m", 0); });
  EXPECT_EQ(base::read_file(file), "");
}

}  // namespace
}  // namespace cepe::train
