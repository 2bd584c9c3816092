// A CPU without memory for large tensors.
#pragma once

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <limits>

namespace cepe::test {

// While one is there, LibTorch refuses tensors of at least `bytes`, of a multiple of `unit`, but for the first `spared`
// of them, and then again after `refused` refusals.
class ShortMemory : public c10::Allocator {
 public:
  explicit ShortMemory(int64_t bytes, int64_t unit = 1, int64_t spared = 0,
                       int64_t refused = std::numeric_limits<int64_t>::max())
      : bytes_(bytes), unit_(unit), spared_(spared), refused_(refused), real_(c10::GetCPUAllocator()) {
    c10::SetCPUAllocator(this, most_important);
  }
  ~ShortMemory() override { c10::SetCPUAllocator(real_, most_important); }
  ShortMemory(const ShortMemory&) = delete;
  ShortMemory& operator=(const ShortMemory&) = delete;

  c10::DataPtr allocate(size_t size) override {
    const auto asked = static_cast<int64_t>(size);
    if (asked >= bytes_ && asked % unit_ == 0 && --spared_ < 0 && --refused_ >= 0)
      TORCH_CHECK(false, "DefaultCPUAllocator: can't allocate memory");
    return real_->allocate(size);
  }
  c10::DeleterFnPtr raw_deleter() const override { return real_->raw_deleter(); }
  void copy_data(void* to, const void* from, std::size_t count) const override { real_->copy_data(to, from, count); }

 private:
  static constexpr uint8_t most_important = 255;
  int64_t bytes_, unit_, spared_, refused_;
  c10::Allocator* real_;
};

}  // namespace cepe::test
