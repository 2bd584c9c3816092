// The GPU that tests of kind `gpu` run on. Open it before anything else is asked of LibTorch (ops/device.h).
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "base/error.h"
#include "ops/device.h"

namespace cepe::test {

// Why there is no GPU, or the GPU. CEPE_GPU names another device than "cuda"; with CEPE_REQUIRE_GPU set, none is a
// failure, not a reason to skip.
struct Gpu {
  std::optional<at::Device> device;
  std::string reason;
};

inline const Gpu& gpu() {
  static const Gpu found = [] {
    const char* name = std::getenv("CEPE_GPU");
    try {
      return Gpu{ops::open_device(name && *name ? name : "cuda"), ""};
    } catch (const base::Error& error) {
      return Gpu{std::nullopt, error.what()};
    }
  }();
  return found;
}

class OnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (gpu().device) return;
    if (std::getenv("CEPE_REQUIRE_GPU")) FAIL() << gpu().reason;
    GTEST_SKIP() << gpu().reason;
  }
  static at::Device device() { return *gpu().device; }
};

}  // namespace cepe::test
