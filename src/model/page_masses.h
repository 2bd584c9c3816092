// Attribution: what a token's cross-attention gave to each page of its context.
#pragma once

#include "model/cross_attention.h"

namespace cepe::model {

// Adds to `mass`, for the one row query [1, H, D] (before the product with Wk): exp(log-sum-exp of a page - of all
// pages), mean over heads. All pages by one call of paged_attention, each as a sequence of its own.
void add_page_masses(const CrossAttention& block, const at::Tensor& query, const ContextStates& context,
                     const HeadShape& shape, int64_t layer, ContextMass& mass);

}  // namespace cepe::model
