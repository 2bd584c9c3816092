// Golden tensors and the distance they are compared by: max|a-b| / max|b| over the whole tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <limits>
#include <string>

#include "formats/checkpoint.h"
#include "model/weight_reader.h"

namespace cepe::test {

class Golden {
 public:
  explicit Golden(const std::filesystem::path& file) : checkpoint_(formats::Checkpoint::open(file)) {}
  bool contains(const std::string& name) const { return checkpoint_.contains(name); }
  at::Tensor at(const std::string& name) const { return model::to_tensor(checkpoint_.at(name)); }
  const std::vector<std::string>& names() const { return checkpoint_.names(); }

 private:
  formats::Checkpoint checkpoint_;
};

inline double distance(const at::Tensor& found, const at::Tensor& golden) {
  if (!found.defined() || found.sizes() != golden.sizes()) return std::numeric_limits<double>::infinity();
  const at::Tensor difference = found.detach().to(at::kDouble).sub(golden.to(at::kDouble)).abs();
  const double largest = golden.to(at::kDouble).abs().max().item<double>();
  const double worst = difference.max().item<double>();
  return largest > 0 ? worst / largest : worst;
}

constexpr double float_tolerance = 1e-5;
constexpr double gradient_tolerance = 3e-5;

}  // namespace cepe::test
