// Which activation a model uses; no tensors, so that configurations can be read without LibTorch.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace cepe::ops {

enum class Activation { silu, gelu, gelu_tanh, relu };

// By its name in config.json ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", ...). Errors: unsupported, naming it.
inline Activation activation_named(std::string_view name) {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::gelu_tanh;
  if (name == "relu") return Activation::relu;
  throw base::Error(base::ErrorCode::unsupported,
                    "activation '" + std::string(name) + "': known are silu, gelu, gelu_new, gelu_pytorch_tanh, relu");
}

// Its name in a config.json that we write.
inline const char* name_of(Activation activation) {
  switch (activation) {
    case Activation::gelu:
      return "gelu";
    case Activation::gelu_tanh:
      return "gelu_pytorch_tanh";
    case Activation::relu:
      return "relu";
    default:
      return "silu";
  }
}

}  // namespace cepe::ops
