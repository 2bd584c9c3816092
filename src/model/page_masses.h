// Attribution: what a token's cross-attention gave to each page of its context.
#pragma once

#include "model/cross_attention.h"
#include "model/step_tables.h"

namespace cepe::model {

// Adds to `mass`, for the one row query [1, H, D] (before the product with Wk): exp(log-sum-exp of a page - of all
// pages), mean over heads. All pages by one call of paged_attention, each as a sequence of its own.
void add_page_masses(const CrossAttention& block, const at::Tensor& query, const ContextStates& context,
                     const HeadShape& shape, int64_t layer, ContextMass& mass);

// The same for the rows of a step that ask, by tables on the device. rows [B * R, G, D]: the query rows that attended
// to the whole contexts, R a sequence; log_sum_exp [B * R, G]: what that left.
void add_step_masses(const StepMasses& masses, const at::Tensor& rows, const at::Tensor& log_sum_exp, double scale,
                     int64_t layer);

}  // namespace cepe::model
