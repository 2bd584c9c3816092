// AdamW (arXiv 1711.05101) and Muon (Jordan et al., "Muon: An optimizer for hidden layers", 2024; scale as in arXiv
// 2502.16982) over float32 master weights, or over bfloat16 weights with stochastic rounding.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "train/parameters.h"
#include "train/recipe.h"

namespace cepe::train {

class Optimiser {
 public:
  // Master weights start as the parameters are.
  Optimiser(std::vector<Parameter> parameters, const OptimiserSettings& settings, uint64_t seed);

  // Adds `weight` times what backward left in the leaves' grad to the float32 sums, and clears it.
  void accumulate(double weight = 1);
  // One step with the sums times `gradient_scale`, at `rate_share` of the peak rate; clears the sums. Returns the
  // gradients' norm before clipping. Where it is not finite nothing is changed.
  double step(double rate_share, double gradient_scale);

  // Everything that a resumed run needs, as tensors under published names: "master.", "momentum.", "variance.".
  // The visitor may write into them; call restored() afterwards.
  void visit(const std::function<void(const std::string&, at::Tensor&)>& visitor);
  void restored(int64_t steps_done);
  int64_t steps() const { return steps_; }  // done; those with gradients that are not finite do not count

  const std::vector<Parameter>& parameters() const { return parameters_; }
  // The sums of all parameters, one after the other: float32 [P].
  at::Tensor gradients() const { return sums_; }
  // The float32 weight behind a leaf; the leaf itself where it is not trained or has none.
  at::Tensor weight_behind(const at::Tensor& leaf) const;

 private:
  struct Slot {           // one parameter's
    at::Tensor sum;       // float32, of gradients; a part of sums_
    at::Tensor master;    // float32; without master weights it lives only while a step is made
    at::Tensor momentum;  // float32; a part of momenta_
    at::Tensor variance;  // float32, AdamW only
    int64_t first = 0;    // where its part begins
    double rate = 0;
    bool muon = false;
  };

  bool is_muons(const Parameter& parameter) const;
  double clip_scale(double norm) const;
  void adamw(double rate_share, const std::vector<at::Tensor>& masters);
  void muon(double rate_share, const std::vector<at::Tensor>& masters);
  void write_back(const std::vector<at::Tensor>& masters);

  std::vector<Parameter> parameters_;
  OptimiserSettings settings_;
  std::vector<Slot> slots_;
  at::Tensor sums_, momenta_;  // float32 [P]: those of Muon first
  int64_t muon_values_ = 0;    // how many those are
  uint64_t seed_;
  int64_t steps_ = 0;
};

}  // namespace cepe::train
