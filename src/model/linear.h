// Linear: one weight and perhaps a bias, dense or in 4- or 8-bit blocks, one `forward`.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "ops/input_moments.h"
#include "ops/packed_weight.h"

namespace cepe::model {

// scale * up * down (LoRA, arXiv 2106.09685) added to rows [first, first + out) of a weight's product.
struct LowRank {
  int64_t first = 0;
  at::Tensor down;  // [r, in]
  at::Tensor up;    // [out, r]
  double scale = 1;
};

struct Linear {
  at::Tensor weight;  // [out, in], any strides; undefined when packed
  at::Tensor bias;    // [out] or undefined
  std::shared_ptr<const ops::PackedWeight> packed;
  std::vector<LowRank> low_rank = {};  // while a LoRA is trained; empty otherwise
  // While the model is calibrated: every forward adds its inputs; nullptr otherwise.
  std::shared_ptr<ops::InputMoments> moments = nullptr;

  explicit operator bool() const { return weight.defined() || packed; }
  int64_t out_features() const { return packed ? packed->out_features : weight.size(0); }
  int64_t in_features() const { return packed ? packed->in_features : weight.size(1); }
  int64_t bytes() const;
};

// x [..., in] -> [..., out] of x's type. A dense weight of another type than x multiplies in the weight's type.
at::Tensor forward(const Linear& linear, const at::Tensor& x);

// Whether that is x weight^T and nothing else.
bool is_plain_product(const Linear& linear, const at::Tensor& x);

// Rows of the table for tokens [N] int64 -> [N, in] of `type`: an embedding look-up.
at::Tensor look_up(const Linear& table, const at::Tensor& tokens, at::ScalarType type);

// The weight as a dense tensor of `type` (a copy only where it must be).
at::Tensor dense_weight(const Linear& linear, at::ScalarType type);

}  // namespace cepe::model
