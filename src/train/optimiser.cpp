#include "train/optimiser.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/add.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "train/orthogonalise.h"

namespace cepe::train {
namespace {

bool is_table(const std::string& name) {
  return name.find("embed") != std::string::npos || name.starts_with("lm_head");
}

// Muon is for the matrices between hidden rows: no vectors, no embedding or output tables.
bool takes_muon(const Parameter& parameter) {
  return parameter.value.dim() == 2 &&
         std::none_of(parameter.parts.begin(), parameter.parts.end(), [](const auto& p) { return is_table(p.name); });
}

double rate_of(const Parameter& parameter, const OptimiserSettings& settings, bool muon) {
  double rate = settings.rate;
  if (parameter.group == Parameter::Group::encoder) rate *= settings.encoder_rate;
  if (settings.kind == "muon" && !muon) rate *= settings.vector_rate;
  return rate;
}

}  // namespace

Optimiser::Optimiser(std::vector<Parameter> parameters, const OptimiserSettings& settings, uint64_t seed)
    : parameters_(std::move(parameters)), settings_(settings), seed_(seed) {
  const at::NoGradGuard none;
  const auto space = [](const Parameter& parameter) {
    constexpr int64_t aligned = 64;  // floats: kernels read sixteen bytes at once
    return (parameter.value.numel() + aligned - 1) / aligned * aligned;
  };
  int64_t total = 0;
  for (const Parameter& parameter : parameters_) {
    total += space(parameter);
    if (is_muons(parameter)) muon_values_ += space(parameter);
  }
  if (total > 0) {
    sums_ = at::zeros({total}, parameters_.front().value.options().dtype(at::kFloat).requires_grad(false));
    momenta_ = at::zeros_like(sums_);
  }
  int64_t next_muon = 0, next_other = muon_values_;
  for (const Parameter& parameter : parameters_) {
    Slot slot;
    slot.muon = is_muons(parameter);
    slot.rate = rate_of(parameter, settings_, slot.muon);
    int64_t& next = slot.muon ? next_muon : next_other;
    const auto part_of = [&](const at::Tensor& all) {
      return all.narrow(0, next, parameter.value.numel()).view(parameter.value.sizes());
    };
    slot.first = next;
    slot.sum = part_of(sums_);
    slot.momentum = part_of(momenta_);
    next += space(parameter);
    if (!slot.muon) slot.variance = at::zeros_like(slot.sum);
    if (settings_.master_weights) slot.master = parameter.value.detach().to(at::kFloat, false, true);
    slots_.push_back(std::move(slot));
  }
}

bool Optimiser::is_muons(const Parameter& parameter) const { return settings_.kind == "muon" && takes_muon(parameter); }

void Optimiser::accumulate(double weight) {
  const at::NoGradGuard none;
  for (size_t i = 0; i < slots_.size(); ++i) {
    at::Tensor& gradient = parameters_[i].value.mutable_grad();
    if (!gradient.defined()) continue;  // nothing of this batch went through it
    slots_[i].sum.add_(gradient, weight);
    gradient.reset();
  }
}

double Optimiser::clip_scale(double norm) const {
  return settings_.clip > 0 && norm > settings_.clip ? settings_.clip / (norm + 1e-6) : 1;
}

double Optimiser::step(double rate_share, double gradient_scale) {
  const at::NoGradGuard none;
  if (!sums_.defined()) return 0;
  const double norm = sums_.norm().item<double>() * gradient_scale;
  if (std::isfinite(norm)) {
    sums_.mul_(gradient_scale * clip_scale(norm));
    ++steps_;
    std::vector<at::Tensor> masters;
    for (size_t i = 0; i < slots_.size(); ++i)
      masters.push_back(settings_.master_weights ? slots_[i].master
                                                 : parameters_[i].value.detach().to(at::kFloat, false, true));
    adamw(rate_share, masters);
    muon(rate_share, masters);
    write_back(masters);
  }
  sums_.zero_();
  return norm;
}

void Optimiser::adamw(double rate_share, const std::vector<at::Tensor>& masters) {
  std::map<double, std::vector<size_t>> by_rate;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (!slots_[i].muon) by_rate[slots_[i].rate].push_back(i);
  }
  if (by_rate.empty()) return;
  const at::Tensor step = at::scalar_tensor(static_cast<double>(steps_), sums_.options());
  for (const auto& [rate, members] : by_rate) {
    std::vector<at::Tensor> weights, gradients, momenta, variances;
    for (const size_t i : members) {
      weights.push_back(masters[i]);
      gradients.push_back(slots_[i].sum);
      momenta.push_back(slots_[i].momentum);
      variances.push_back(slots_[i].variance);
    }
    at::_fused_adamw_(weights, gradients, momenta, variances, {}, std::vector<at::Tensor>(members.size(), step),
                      rate * rate_share, settings_.beta1, settings_.beta2, settings_.weight_decay, settings_.eps, false,
                      false);
  }
}

// Few large operations instead of some for each matrix: between two steps a GPU would wait for their launches.
void Optimiser::muon(double rate_share, const std::vector<at::Tensor>& masters) {
  if (muon_values_ == 0) return;
  at::Tensor momenta = momenta_.narrow(0, 0, muon_values_);
  const at::Tensor sums = sums_.narrow(0, 0, muon_values_);
  momenta.mul_(settings_.momentum).add_(sums);
  const at::Tensor ahead = at::add(sums, momenta, settings_.momentum);  // Nesterov
  struct Group {
    std::vector<at::Tensor> weights, updates;
  };
  std::map<std::tuple<int64_t, int64_t, double>, Group> groups;  // by shape and rate
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (!slot.muon) continue;
    const at::Tensor whole = ahead.narrow(0, slot.first, masters[i].numel()).view(masters[i].sizes());
    for (const NamedRows& part : parameters_[i].parts) {
      Group& group = groups[{part.rows, whole.size(1), slot.rate * rate_share}];
      group.weights.push_back(masters[i].narrow(0, part.first, part.rows));
      group.updates.push_back(whole.narrow(0, part.first, part.rows));
    }
  }
  for (auto& [key, group] : groups) {
    const auto [rows, columns, rate] = key;
    const std::vector<at::Tensor> directions = orthogonalised(at::stack(group.updates)).to(at::kFloat).unbind(0);
    // As large as AdamW's steps are by their root mean square.
    const double size = 0.2 * std::sqrt(static_cast<double>(std::max(rows, columns)));
    if (settings_.weight_decay > 0) at::_foreach_mul_(group.weights, 1 - rate * settings_.weight_decay);
    at::_foreach_add_(group.weights, directions, -rate * size);
  }
}

void Optimiser::write_back(const std::vector<at::Tensor>& masters) {
  std::vector<at::Tensor> values, rounded;
  for (size_t i = 0; i < slots_.size(); ++i) {
    at::Tensor value = parameters_[i].value.detach();
    const bool plainly = settings_.master_weights || value.scalar_type() == at::kFloat;
    rounded.push_back(
        plainly
            ? masters[i]
            : rounded_stochastically(
                  masters[i], rounding_noise(masters[i], seed_ + static_cast<uint64_t>(steps_) * slots_.size() + i)));
    values.push_back(value);
  }
  if (!values.empty()) at::_foreach_copy_(values, rounded);
}

void Optimiser::visit(const std::function<void(const std::string&, at::Tensor&)>& visitor) {
  const at::NoGradGuard none;
  for (size_t i = 0; i < slots_.size(); ++i) {
    at::Tensor value = parameters_[i].value.detach();
    const auto parts = [&](const std::string& prefix, const at::Tensor& whole) {
      if (!whole.defined()) return;
      for (const NamedRows& part : parameters_[i].parts) {
        at::Tensor rows = whole.narrow(0, part.first, part.rows);
        visitor(prefix + part.name, rows);
      }
    };
    parts("master.", settings_.master_weights ? slots_[i].master : value);
    parts("momentum.", slots_[i].momentum);
    parts("variance.", slots_[i].variance);
  }
}

void Optimiser::restored(int64_t steps_done) {
  const at::NoGradGuard none;
  steps_ = steps_done;
  if (!settings_.master_weights) return;
  for (size_t i = 0; i < slots_.size(); ++i) parameters_[i].value.detach().copy_(slots_[i].master);
}

at::Tensor Optimiser::weight_behind(const at::Tensor& leaf) const {
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (parameters_[i].value.is_same(leaf)) return settings_.master_weights ? slots_[i].master : leaf;
  }
  return leaf;
}

}  // namespace cepe::train
