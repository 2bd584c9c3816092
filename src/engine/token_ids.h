// Token ids on their way to the decoder.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "text/tokenizer.h"

namespace cepe::engine {

at::Tensor token_tensor(std::span<const text::Token> ids, at::Device device);  // [ids.size()] int64

// On the host, before anything reaches a device: there an id out of range would end the process.
// Errors: invalid_argument, naming the id.
void check_ids(std::span<const text::Token> ids, int64_t vocabulary);

}  // namespace cepe::engine
