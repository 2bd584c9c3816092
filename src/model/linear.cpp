#include "model/linear.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>

namespace cepe::model {

int64_t Linear::bytes() const {
  int64_t total = packed ? ops::packed_bytes(*packed) : weight.defined() ? static_cast<int64_t>(weight.nbytes()) : 0;
  if (bias.defined()) total += static_cast<int64_t>(bias.nbytes());
  return total;
}

at::Tensor forward(const Linear& linear, const at::Tensor& x) {
  if (linear.packed) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = linear.packed->out_features;
    const at::Tensor product = ops::packed_linear(x.reshape({-1, x.size(-1)}), *linear.packed).reshape(shape);
    return linear.bias.defined() ? product.add(linear.bias.to(product.scalar_type())) : product;
  }
  if (x.scalar_type() == linear.weight.scalar_type()) return at::linear(x, linear.weight, linear.bias);
  const at::Tensor product = at::linear(x.to(linear.weight.scalar_type()), linear.weight).to(x.scalar_type());
  return linear.bias.defined() ? product.add(linear.bias.to(product.scalar_type())) : product;
}

at::Tensor look_up(const Linear& table, const at::Tensor& tokens, at::ScalarType type) {
  if (table.packed) return ops::unpack_rows(*table.packed, tokens, type);
  return at::embedding(table.weight, tokens).to(type);
}

at::Tensor dense_weight(const Linear& linear, at::ScalarType type) {
  return linear.packed ? ops::unpack(*linear.packed, type) : linear.weight.to(type);
}

}  // namespace cepe::model
