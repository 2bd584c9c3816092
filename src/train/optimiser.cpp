#include "train/optimiser.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <map>

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
  int64_t total = 0, first = 0;
  for (const Parameter& parameter : parameters_) total += space(parameter);
  if (total > 0) sums_ = at::zeros({total}, parameters_.front().value.options().dtype(at::kFloat).requires_grad(false));
  for (const Parameter& parameter : parameters_) {
    Slot slot;
    slot.muon = settings_.kind == "muon" && takes_muon(parameter);
    slot.rate = rate_of(parameter, settings_, slot.muon);
    slot.sum = sums_.narrow(0, first, parameter.value.numel()).view(parameter.value.sizes());
    first += space(parameter);
    slot.momentum = at::zeros_like(slot.sum);
    if (!slot.muon) slot.variance = at::zeros_like(slot.sum);
    if (settings_.master_weights) slot.master = parameter.value.detach().to(at::kFloat, false, true);
    slots_.push_back(std::move(slot));
  }
}

void Optimiser::accumulate() {
  const at::NoGradGuard none;
  for (size_t i = 0; i < slots_.size(); ++i) {
    at::Tensor& gradient = parameters_[i].value.mutable_grad();
    if (!gradient.defined()) continue;  // nothing of this batch went through it
    slots_[i].sum.add_(gradient);
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
  for (const auto& [rate, members] : by_rate) {
    std::vector<at::Tensor> weights, gradients, momenta, variances, steps;
    for (const size_t i : members) {
      weights.push_back(masters[i]);
      gradients.push_back(slots_[i].sum);
      momenta.push_back(slots_[i].momentum);
      variances.push_back(slots_[i].variance);
      steps.push_back(at::scalar_tensor(static_cast<double>(steps_), slots_[i].sum.options()));
    }
    at::_fused_adamw_(weights, gradients, momenta, variances, {}, steps, rate * rate_share, settings_.beta1,
                      settings_.beta2, settings_.weight_decay, settings_.eps, false, false);
  }
}

void Optimiser::muon(double rate_share, const std::vector<at::Tensor>& masters) {
  struct Matrix {
    at::Tensor weight, update;
    double rate;
  };
  std::map<std::pair<int64_t, int64_t>, std::vector<Matrix>> by_shape;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (!slot.muon) continue;
    slot.momentum.mul_(settings_.momentum).add_(slot.sum);
    const at::Tensor ahead = slot.sum + slot.momentum * settings_.momentum;  // Nesterov
    for (const NamedRows& part : parameters_[i].parts) {
      by_shape[{part.rows, ahead.size(1)}].push_back(
          {masters[i].narrow(0, part.first, part.rows), ahead.narrow(0, part.first, part.rows), slot.rate});
    }
  }
  for (const auto& [shape, matrices] : by_shape) {
    std::vector<at::Tensor> updates;
    for (const Matrix& matrix : matrices) updates.push_back(matrix.update);
    const at::Tensor directions = orthogonalised(at::stack(updates));
    // As large as AdamW's steps are by their root mean square.
    const double size = 0.2 * std::sqrt(static_cast<double>(std::max(shape.first, shape.second)));
    for (size_t i = 0; i < matrices.size(); ++i) {
      const double rate = matrices[i].rate * rate_share;
      at::Tensor weight = matrices[i].weight;
      if (settings_.weight_decay > 0) weight.mul_(1 - rate * settings_.weight_decay);
      weight.add_(directions[static_cast<int64_t>(i)].to(at::kFloat), -rate * size);
    }
  }
}

void Optimiser::write_back(const std::vector<at::Tensor>& masters) {
  for (size_t i = 0; i < slots_.size(); ++i) {
    at::Tensor value = parameters_[i].value.detach();
    if (settings_.master_weights || value.scalar_type() == at::kFloat) {
      value.copy_(masters[i]);
    } else {
      value.copy_(rounded_stochastically(
          masters[i], rounding_noise(masters[i], seed_ + static_cast<uint64_t>(steps_) * slots_.size() + i)));
    }
  }
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
