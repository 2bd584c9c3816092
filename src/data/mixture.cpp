#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "base/error.h"
#include "data/random_numbers.h"

namespace cepe::data {
namespace {

constexpr size_t most_parts = 1024;

// Whole samples of a period in proportion to the weights: rounded down, at least 1, the rest to those that lost most.
std::vector<uint64_t> shares_of(std::span<const double> weights) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<uint64_t> shares;
  std::vector<double> lost;
  for (const double weight : weights) {
    const double exact = weight / total * static_cast<double>(MixtureOrder::period);
    shares.push_back(weight > 0 ? std::max<uint64_t>(1, static_cast<uint64_t>(exact)) : 0);
    lost.push_back(weight > 0 ? exact - static_cast<double>(shares.back()) : -1e300);
  }
  uint64_t given = std::accumulate(shares.begin(), shares.end(), uint64_t{0});
  for (; given < MixtureOrder::period; ++given) {
    const auto most = static_cast<size_t>(std::max_element(lost.begin(), lost.end()) - lost.begin());
    ++shares[most];
    lost[most] -= 1;
  }
  for (; given > MixtureOrder::period; --given) --*std::max_element(shares.begin(), shares.end());
  return shares;
}

}  // namespace

MixtureOrder::MixtureOrder(std::span<const double> weights, uint64_t seed) : parts_(period), ranks_(period) {
  using base::Error;
  using base::ErrorCode;
  if (weights.empty() || weights.size() > most_parts) {
    throw Error(ErrorCode::invalid_argument, "a mixture of " + std::to_string(weights.size()) +
                                                 " parts; expected 1 to " + std::to_string(most_parts));
  }
  double total = 0;
  for (const double weight : weights) {
    if (!std::isfinite(weight) || weight < 0)
      throw Error(ErrorCode::invalid_argument, "mixture: weight " + std::to_string(weight) + "; expected at least 0");
    total += weight;
  }
  if (!std::isfinite(total) || total <= 0)
    throw Error(ErrorCode::invalid_argument, "mixture: the weights add up to " + std::to_string(total));
  shares_ = shares_of(weights);
  constexpr uint64_t golden = 40503;  // period / golden ratio, odd: j -> j * golden + start visits every place once
  const uint64_t start = random_bits(seed, 0x6d6978);
  std::vector<uint16_t> part_of;
  for (size_t part = 0; part < shares_.size(); ++part)
    part_of.insert(part_of.end(), shares_[part], static_cast<uint16_t>(part));
  std::vector<uint64_t> so_far(shares_.size(), 0);
  for (uint64_t j = 0; j < period; ++j) {
    parts_[j] = part_of[(j * golden + start) % period];
    ranks_[j] = static_cast<uint16_t>(so_far[parts_[j]]++);
  }
}

MixtureOrder::Place MixtureOrder::at(uint64_t index) const {
  const uint64_t j = index % period;
  return {parts_[j], index / period * shares_[parts_[j]] + ranks_[j]};
}

}  // namespace cepe::data
