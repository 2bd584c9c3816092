#include "ops/device.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/error.h"

namespace cepe::ops {
namespace {

base::ErrorCode code_of(const char* name, std::string* message = nullptr) {
  try {
    open_device(name);
  } catch (const base::Error& error) {
    if (message) *message = error.what();
    return error.code();
  }
  ADD_FAILURE() << name << " was opened";
  return base::ErrorCode::internal;
}

TEST(Device, TheCpuOpensWithoutAnyLibrary) {
  EXPECT_TRUE(open_device("cpu").is_cpu());
  EXPECT_FALSE(cuda_is_open());
}

TEST(Device, TheCpuNeedsNoWaitingAndHasNoMemoryOfItsOwn) {
  EXPECT_NO_THROW(synchronise(at::kCPU));
  EXPECT_EQ(peak_device_bytes(at::kCPU), std::nullopt);
  EXPECT_EQ(compute_capability(at::kCPU), 0);
}

TEST(Device, ANameOfNoKnownFormIsRefusedByName) {
  for (const char* name :
       {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:99999999999", "cuda:1000", "cpu:0"}) {
    std::string message;
    EXPECT_EQ(code_of(name, &message), base::ErrorCode::invalid_argument) << name;
    EXPECT_NE(message.find("'" + std::string(name) + "'"), std::string::npos) << message;
    EXPECT_THROW(check_device_name(name), base::Error) << name;
  }
  for (const char* name : {"cpu", "auto", "cuda", "cuda:7"}) EXPECT_NO_THROW(check_device_name(name)) << name;
}

class WithoutGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (std::filesystem::exists("/dev/nvidiactl")) GTEST_SKIP() << "this machine has a GPU";
  }
};

TEST_F(WithoutGpu, AskingForOneSaysWhatIsMissing) {
  std::string message;
  const base::ErrorCode code = code_of("cuda", &message);
  EXPECT_TRUE(code == base::ErrorCode::unsupported || code == base::ErrorCode::not_found) << message;
  EXPECT_NE(message.find("no GPU can be used"), std::string::npos) << message;
}

TEST_F(WithoutGpu, AutomaticallyTheCpuIsChosen) { EXPECT_TRUE(open_device("auto").is_cpu()); }

}  // namespace
}  // namespace cepe::ops
