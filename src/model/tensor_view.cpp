#include "model/tensor_view.h"

#include "base/error.h"

namespace cepe::model {
namespace {

formats::DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return formats::DType::float32;
    case at::kBFloat16:
      return formats::DType::bfloat16;
    case at::kHalf:
      return formats::DType::float16;
    case at::kChar:
      return formats::DType::int8;
    default:
      throw base::Error(base::ErrorCode::internal, "a weight of a type that is not saved");
  }
}

}  // namespace

formats::TensorView view_of(const at::Tensor& tensor) {
  return {dtype_of(tensor),
          tensor.sizes().vec(),
          {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

}  // namespace cepe::model
