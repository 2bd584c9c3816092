// The decoder's layers one at a time, without a cache and without contexts: what `forward` of decoder.h does, for those
// who look at a layer before the next one is there.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/decoder.h"

namespace cepe::model {

// The rows that go into the first layer [N, C].
at::Tensor embed(const Decoder& decoder, const BatchLayout& layout);

// hidden [N, C] before layer `index` (at most the layers loaded so far) -> behind it.
at::Tensor forward_layer(const Decoder& decoder, size_t index, const BatchLayout& layout, const at::Tensor& hidden);

}  // namespace cepe::model
