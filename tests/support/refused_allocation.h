// The CPU has no memory, once: for a test of what an error in the middle leaves behind.
#pragma once

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <cstdint>

namespace cepe::test {

// While one is there, the allocation after so many is refused, that one only.
class RefusedAllocation : public c10::Allocator {
 public:
  explicit RefusedAllocation(int64_t after) : left_(after), real_(c10::GetCPUAllocator()) {
    c10::SetCPUAllocator(this, most_important);
  }
  ~RefusedAllocation() override { c10::SetCPUAllocator(real_, most_important); }
  RefusedAllocation(const RefusedAllocation&) = delete;
  RefusedAllocation& operator=(const RefusedAllocation&) = delete;

  bool refused() const { return left_ < 0; }

  c10::DataPtr allocate(size_t size) override {
    TORCH_CHECK(left_-- != 0, "DefaultCPUAllocator: can't allocate memory");
    return real_->allocate(size);
  }
  c10::DeleterFnPtr raw_deleter() const override { return real_->raw_deleter(); }
  void copy_data(void* to, const void* from, std::size_t count) const override { real_->copy_data(to, from, count); }

 private:
  static constexpr uint8_t most_important = 255;
  int64_t left_;
  c10::Allocator* real_;
};

}  // namespace cepe::test
