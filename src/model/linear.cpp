#include "model/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>

#include "ops/mixed_linear.h"
#include "ops/tuned_product.h"

namespace cepe::model {

int64_t Linear::bytes() const {
  int64_t total = packed ? ops::packed_bytes(*packed) : weight.defined() ? static_cast<int64_t>(weight.nbytes()) : 0;
  if (bias.defined()) total += static_cast<int64_t>(bias.nbytes());
  return total;
}

namespace {

// Many rows in float32 are multiplied in bfloat16 where that is faster: the blocks themselves are coarser.
at::Tensor packed_product(const ops::PackedWeight& weight, const at::Tensor& rows) {
  if (rows.scalar_type() != at::kFloat || rows.size(0) < ops::packed_bfloat16_rows())
    return ops::packed_linear(rows, weight);
  return ops::packed_linear(rows.to(at::kBFloat16), weight).to(at::kFloat);
}

at::Tensor frozen_forward(const Linear& linear, const at::Tensor& x) {
  if (linear.packed) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = linear.packed->out_features;
    const at::Tensor product = packed_product(*linear.packed, x.reshape({-1, x.size(-1)})).reshape(shape);
    return linear.bias.defined() ? product.add(linear.bias.to(product.scalar_type())) : product;
  }
  if (x.scalar_type() == linear.weight.scalar_type())
    return linear.bias.defined() ? at::linear(x, linear.weight, linear.bias) : ops::tuned_product(x, linear.weight);
  const at::Tensor product = ops::mixed_linear(x, linear.weight);
  return linear.bias.defined() ? product.add(linear.bias.to(product.scalar_type())) : product;
}

// [..., in] -> [..., out]: every part in its rows, zeros between.
at::Tensor low_rank_forward(const Linear& linear, const at::Tensor& x) {
  std::vector<at::Tensor> columns;
  std::vector<int64_t> shape = x.sizes().vec();
  int64_t next = 0;
  const auto fill = [&](int64_t until) {
    shape.back() = until - next;
    if (until > next) columns.push_back(at::zeros(shape, x.options()));
  };
  for (const LowRank& part : linear.low_rank) {  // in the order of their rows
    fill(part.first);
    columns.push_back(at::linear(at::linear(x, part.down.to(x.scalar_type())), part.up.to(x.scalar_type())) *
                      part.scale);
    next = part.first + part.up.size(0);
  }
  fill(linear.out_features());
  return at::cat(columns, -1);
}

}  // namespace

bool is_plain_product(const Linear& linear, const at::Tensor& x) {
  return linear.weight.defined() && linear.weight.scalar_type() == x.scalar_type() && !linear.bias.defined() &&
         linear.low_rank.empty() && !linear.moments;
}

at::Tensor forward(const Linear& linear, const at::Tensor& x) {
  if (linear.moments) ops::add_inputs(*linear.moments, x);
  const at::Tensor product = frozen_forward(linear, x);
  return linear.low_rank.empty() ? product : product + low_rank_forward(linear, x);
}

at::Tensor look_up(const Linear& table, const at::Tensor& tokens, at::ScalarType type) {
  if (table.packed) return ops::unpack_rows(*table.packed, tokens, type);
  return at::embedding(table.weight, tokens).to(type);
}

at::Tensor dense_weight(const Linear& linear, at::ScalarType type) {
  return linear.packed ? ops::unpack(*linear.packed, type) : linear.weight.to(type);
}

}  // namespace cepe::model
