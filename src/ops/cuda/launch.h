// Between a .cu file (CUDA, no tensor library) and the .cpp beside it (which knows LibTorch's streams).
#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/kernels.h"

namespace cepe::ops::cuda {

cudaError_t launch(const RmsNormRows& run, cudaStream_t stream);
cudaError_t launch(const RotaryRows& run, cudaStream_t stream);
cudaError_t launch(const RotaryCacheRows& run, cudaStream_t stream);
cudaError_t launch_into_int8_cache(const RotaryCacheRows& run, cudaStream_t stream);
cudaError_t launch(const GatedRows& run, cudaStream_t stream);
cudaError_t launch(const RmsNormGradientRows& run, cudaStream_t stream);
cudaError_t launch(const GatedSiluGradientRows& run, cudaStream_t stream);
cudaError_t launch(const CrossEntropyRows& run, cudaStream_t stream);
cudaError_t launch(const RowProductRun& run, cudaStream_t stream);
cudaError_t launch(const TransposedProductRun& run, cudaStream_t stream);
cudaError_t launch(const GatedProductRun& run, cudaStream_t stream);
cudaError_t launch(const RotatedProductRun& run, cudaStream_t stream);
cudaError_t launch(const PagedAttentionRun& run, cudaStream_t stream);
cudaError_t launch(const TokenAttentionRun& run, cudaStream_t stream);
cudaError_t launch(const PageLogSumExpsRun& run, cudaStream_t stream);
bool takes_page_log_sum_exps(int64_t width, bool int8_pages);
cudaError_t launch(const DenseAttentionRun& run, cudaStream_t stream);
int dense_units(int64_t width, int device);
cudaError_t launch(const MergeAttentionRun& run, cudaStream_t stream);
cudaError_t launch(const PackedProductRun& run, cudaStream_t stream);
cudaError_t launch(const UnpackRun& run, cudaStream_t stream);
int64_t paged_attention_workspace(const PagedAttentionRun& run);  // on the current device
bool takes_heads(const PagedAttentionRun& run);                   // likewise
bool takes_token(const TokenAttentionRun& run);                   // likewise

// Whether the current device has machine code for the kernels.
bool has_machine_code();

}  // namespace cepe::ops::cuda
