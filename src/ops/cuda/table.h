// The functions that the table of libcepe_cuda.so points to.
#pragma once

#include "ops/cuda/kernels.h"

namespace cepe::ops::cuda {

const char* rms_norm(const RmsNormRows& run);
const char* rotate(const RotaryRows& run);
const char* rotate_into_cache(const RotaryCacheRows& run);
const char* gated(const GatedRows& run);
const char* rms_norm_gradient(const RmsNormGradientRows& run);
const char* gated_silu_gradient(const GatedSiluGradientRows& run);
const char* cross_entropy(const CrossEntropyRows& run);
const char* row_product(const RowProductRun& run);
const char* transposed_head_product(const TransposedProductRun& run);
bool tuned_product(const TunedProductRun& run);
bool gated_product(const GatedProductRun& run);
bool rotated_product(const RotatedProductRun& run);
const char* paged_attention(const PagedAttentionRun& run);
int64_t paged_attention_bytes(const PagedAttentionRun& run);
const char* token_attention(const TokenAttentionRun& run);
bool takes_token_attention(const TokenAttentionRun& run);
bool attends_into_heads(const PagedAttentionRun& run);
const char* page_log_sum_exps(const PageLogSumExpsRun& run);
int dense_attention_units(int64_t width, int device);
const char* dense_attention(const DenseAttentionRun& run);
const char* merge_attention(const MergeAttentionRun& run);
const char* packed_product(const PackedProductRun& run);
const char* unpack(const UnpackRun& run);
void* record_graph(int device, const std::function<void()>& work);
void replay_graph(void* graph);
void destroy_graph(void* graph);

}  // namespace cepe::ops::cuda
