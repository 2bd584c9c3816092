// Golden tensors, and how far from them a result may be (distance.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

#include "distance.h"
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

constexpr double float_tolerance = 1e-5;
constexpr double gradient_tolerance = 3e-5;

}  // namespace cepe::test
