// Which part of a mixture a sample comes from, so that every stretch of samples holds the parts in their proportions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace cepe::data {

// A golden-ratio lattice over a period of 2^16 samples: within it each part has its share to the sample, and any short
// stretch, also every second or every eighth sample, comes as near to the shares as it can.
class MixtureOrder {
 public:
  static constexpr uint64_t period = uint64_t{1} << 16;

  // Weights, at most 1024 of them, at least 0, of a sum above 0. A positive weight gets at least one sample a period.
  // Errors: invalid_argument.
  MixtureOrder(std::span<const double> weights, uint64_t seed);

  struct Place {
    size_t part = 0;
    uint64_t rank = 0;  // how many samples before this one come from the same part
  };
  Place at(uint64_t index) const;
  uint64_t share(size_t part) const { return shares_[part]; }  // samples of a period

 private:
  std::vector<uint64_t> shares_;
  std::vector<uint16_t> parts_;  // [period]
  std::vector<uint16_t> ranks_;  // [period], within the period
};

}  // namespace cepe::data
