// What libcepe_cuda.so offers the program that loads it (device.cpp): the state of the driver, and kernels over plain
// pointers. Included on both sides and by the .cu files: no tensor type here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "ops/activation_kind.h"
#include "ops/packed_format.h"

namespace cepe::ops::cuda {

// Pointers are the device's; `bfloat16` tells bfloat16 from float32. The kernels run on the device's current stream.

struct RmsNormRows {
  const void* x;       // [rows, width] contiguous
  const void* added;   // [rows, width] contiguous, to x before anything else; or nullptr
  void* sum;           // [rows, width]: x + added; where there is `added`
  const void* weight;  // [width]
  void* y;             // [rows, width]
  int64_t rows, width;
  float eps;
  bool unit_offset, bfloat16;
  int device;
};
inline constexpr int64_t widest_rms_norm = int64_t{1} << 14;  // a row is kept in one block's registers

struct RmsNormGradientRows {
  const void* x;           // [rows, width] contiguous
  const void* weight;      // [width]
  const void* y_gradient;  // [rows, width] contiguous
  void* x_gradient;        // [rows, width], or nullptr
  void* weight_gradient;   // [width], or nullptr
  float* weight_sums;      // scratch [rms_norm_weight_sums(rows, width), width] where the weight's gradient is wanted
  int64_t rows, width;
  float eps;
  bool unit_offset, bfloat16;
  int device;
};
inline constexpr int64_t widest_rms_norm_gradient = int64_t{1} << 13;
// Sums that the weight's gradient is first taken to, each over rows of its own, then added up: enough to fill the GPU,
// few enough that they cost little beside the rows. It depends on the sizes alone, hence so does the order of
// summation.
constexpr int64_t rms_norm_weight_sums(int64_t rows, int64_t width) {
  const int64_t wanted = std::clamp<int64_t>((int64_t{1} << 20) / width, 264, 4224);
  return rows < wanted ? rows : wanted;
}

struct RotaryRows {
  const void* x;           // [rows, heads, width], channels contiguous
  void* y;                 // [rows, heads, width] contiguous
  const float *cos, *sin;  // [rows, half]
  int64_t rows, heads, width, half;
  int64_t row_stride, head_stride;  // of x, in elements
  bool backwards;                   // by the angles' negatives: what the gradient takes
  bool bfloat16;
  int device;
};

// Rotates queries and keys, and puts keys and values where a cache keeps them; in 8 bits up to widest_int8_head.
inline constexpr int64_t widest_int8_head = 256;
struct RotaryCacheRows {
  const void *queries, *keys, *values;  // [rows, heads or groups, width], channels contiguous
  void* rotated;                        // queries [rows, heads, width] contiguous
  void *cache_keys, *cache_values;      // [slots, groups, width], cache_row elements from slot to slot
  const int64_t* slots;                 // [rows]
  const float *cos, *sin;               // [rows, half]
  int64_t rows, heads, groups, width, half;
  int64_t query_row, query_head, key_row, key_head, value_row, value_head, cache_row;  // strides, in elements
  bool bfloat16;
  bool int8_cache;  // of bfloat16: a slot [groups, width + 4] as ops/int8_rows.h packs it; cache_row in bytes
  int device;
};

struct GatedRows {
  const void* gate_up;  // [rows, 2 * width] contiguous
  void* y;              // [rows, width]
  int64_t rows, width;
  Activation activation;
  bool bfloat16;
  int device;
};

struct GatedSiluGradientRows {
  const void* gate_up;     // [rows, 2 * width] contiguous
  const void* y_gradient;  // [rows, width] contiguous
  void* gate_up_gradient;  // [rows, 2 * width]
  int64_t rows, width;
  bool bfloat16;
  int device;
};

struct CrossEntropyRows {
  void* logits;           // [rows, vocabulary]; with `gradient`, theirs is written over them
  const int64_t* labels;  // [rows]: a column; -100: not counted; anything else: NaN
  const float* scale;     // one: factor of the gradients
  float* losses;          // [rows]
  int64_t rows, vocabulary;
  int64_t stride;  // of logits, in elements
  float cap;       // > 0: of tanh(logits / cap) * cap
  bool gradient, bfloat16;
  int device;
};

// y = x weight^T, bfloat16, all contiguous and aligned to 16 bytes. With groups of heads (ops/head_product.h): x [B,
// groups * heads, inputs], y [B, groups * heads, outputs / groups], rows = B * heads, and each group of outputs
// (a multiple of 8) has its own x.
struct RowProductRun {
  const void* x;       // [rows, inputs]
  const void* weight;  // [outputs, inputs]
  void* y;             // [rows, outputs]
  int64_t rows, inputs, outputs;
  int64_t groups, heads;  // 1, 1: one x for all
  int device;
};
// y = weight_g^T x, likewise: x [B, groups * heads, inputs / groups], weight [inputs, outputs], y [B, groups * heads,
// outputs].
struct TransposedProductRun {
  const void* x;
  const void* weight;
  void* y;
  int64_t rows, inputs, outputs, groups, heads;
  int device;
};
// y = x weight^T, bfloat16, all contiguous and aligned to 256 bytes, by the algorithm found for the rows alike
// (ops/tuned_product.h).
struct TunedProductRun {
  const void* x;       // [rows, inputs]
  const void* weight;  // [outputs, inputs]
  void* y;             // [rows, outputs]
  int64_t rows, inputs, outputs;
  int64_t rows_alike;
  int device;
};
// x weight^T, bfloat16, all contiguous and aligned to 16 bytes, inputs and outputs multiples of 8, of which what
// follows is written (ops/fused_product.h).
struct FusedProductRun {
  const void* x;       // [rows, inputs]
  const void* weight;  // [outputs, inputs]
  void* y;             // [rows, outputs], or what follows says
  int64_t rows, inputs, outputs;
  int device;
};
struct GatedProductRun {
  FusedProductRun product;  // y [rows, outputs / 2]
  Activation activation;
};
struct RotatedProductRun {
  FusedProductRun product;
  const float *cos, *sin;  // [rows, width / 2], aligned to 8 bytes
  int64_t heads, width;    // that are turned, the first of the outputs
};
inline constexpr int64_t most_row_product_rows = 4;
inline constexpr int64_t most_row_product_values = 24576;  // of x: 48 kB of shared memory, what any GPU gives a block

// Attention of a ragged batch of query rows over cached rows in pages (ops/paged_attention.h gives the meaning).
struct PagedAttentionRun {
  const void* queries;         // [query_rows, groups, width] contiguous
  const int32_t* first_query;  // [sequences + 1]
  const int32_t* first_page;   // [sequences + 1], into the three tables below
  const int64_t* keys;         // address of each page's first row: bfloat16 [rows, groups, width], or as said below
  const int64_t* values;       // likewise; not read where `same`
  const int32_t* rows;         // [pages], each at most page_rows
  void* output;                // [query_rows, groups, width] contiguous
  float* log_sum_exp;          // [query_rows, groups]
  void* workspace;             // paged_attention_bytes of it, aligned to 16 bytes
  int64_t sequences, query_rows, groups, width, page_rows;
  int64_t pages;                     // of the tables, used or not; 0: not known
  int64_t key_stride, value_stride;  // elements from row to row of a page
  int64_t most_query_rows;           // of one sequence
  int64_t rows_of_token;             // above 0: causal (ops/paged_attention.h)
  bool backwards;                    // from the last tile of a part to its first
  float scale;                       // above zero
  bool same;                         // the keys serve as values
  bool int8_pages;                   // [rows, width + 4] as ops/int8_rows.h packs them
  bool int8_heads;  // each row [groups, width + 4] likewise, strides in bytes; by clusters alone (cluster_rows.cuh)
  bool bfloat16_queries, bfloat16_output;
  int device;
  // Where given, each head's row goes on into its matrix, and the output is [query_rows, head_width].
  const void* head_weight;  // bfloat16 [head_groups * head_width, width]
  int64_t heads, head_groups, head_width;
};
// ops/token_attention.h. Of `tokens` `rotated` is not used, of `pages` queries, first_query, query_rows, log_sum_exp
// and workspace; its output is [rows, heads, width].
struct TokenAttentionRun {
  RotaryCacheRows tokens;  // a row for each of the pages' sequences
  PagedAttentionRun pages;
  int device;
};
inline constexpr int64_t most_elements = int64_t{1} << 31;  // of one call: kernels count in 32 bits

// ops/page_log_sum_exps.h. Query rows aligned to 16 bytes; keys as in PagedAttentionRun.
struct PageLogSumExpsRun {
  const void* queries;  // bfloat16 [sequences * each, groups, width] contiguous
  const int64_t* of;    // [pages]: the sequence
  const int64_t* keys;  // [pages]
  const int32_t* rows;  // [pages]
  float* log_sum_exp;   // [pages, each, groups]
  int64_t pages, each, groups, width, key_stride;
  float scale;
  bool int8_pages;
  int device;
};

// ops/dense_attention.h: bfloat16, each pointer and stride of a multiple of 16 bytes. The keys in `parts` of their own.
struct DenseAttentionRun {
  const void* queries;  // [query_rows, heads, width]
  const void* keys;     // [key_rows, groups, width]
  const void* values;   // likewise
  void* output;         // [parts, query_rows, heads, width] contiguous
  float* log_sum_exp;   // [parts, heads, query_rows]
  int64_t query_rows, key_rows, heads, groups, width;
  int64_t query_stride, key_stride, value_stride;  // elements from row to row
  int64_t parts;                                   // at most as many as tiles of dense_attention_tile keys
  float scale;                                     // above zero
  int device;
};
inline constexpr int64_t dense_attention_tile = 128, dense_attention_rows = 256;  // query rows of a unit

// Two parts of an attention become one (ops/merge_attention.h). With groups > 1 the outputs stand in memory as
// [rows / groups, groups, width], the log-sum-exps as [groups, rows / groups].
struct MergeAttentionRun {
  struct Part {
    const void* output;        // [rows, width]
    const float* log_sum_exp;  // [rows]
    bool bfloat16;
  };
  Part first, second;
  float* output;       // [rows, width]
  float* log_sum_exp;  // [rows]
  int64_t rows, width, groups;
  int device;
};

// A packed weight as ops/flat_weight.h lays it out: fp8_row, int8_row or q4_1.
struct PackedRows {
  const void* data;    // [out, chunks, 64] bytes
  const void* scales;  // float32 [out]; q4_1: float16 [out, chunks, 4, 2]
  int64_t out_features, in_features, chunks;
  PackedFormat format;
};

struct PackedProductRun {
  PackedRows weight;  // in_features a multiple of 16, of 32 for q4_1
  const void* x;      // bfloat16 [rows, in] contiguous, aligned to 16 bytes
  void* y;            // bfloat16 [rows, out]
  int64_t rows;       // 1 to most_packed_product_rows
  int device;
};
inline constexpr int64_t most_packed_product_rows = 16;

struct UnpackRun {
  PackedRows weight;
  void* to;  // [rows, in] contiguous, aligned to 16 bytes
  int64_t first, rows;
  bool bfloat16;
  int device;
};

// Each returns nullptr, or what CUDA says against the launch.
struct CudaKernels {
  const char* (*rms_norm)(const RmsNormRows&);
  const char* (*rotate)(const RotaryRows&);
  const char* (*rotate_into_cache)(const RotaryCacheRows&);
  const char* (*gated)(const GatedRows&);
  const char* (*rms_norm_gradient)(const RmsNormGradientRows&);
  const char* (*gated_silu_gradient)(const GatedSiluGradientRows&);
  const char* (*cross_entropy)(const CrossEntropyRows&);
  const char* (*row_product)(const RowProductRun&);
  const char* (*transposed_head_product)(const TransposedProductRun&);
  bool (*tuned_product)(const TunedProductRun&);  // whether it did it
  bool (*gated_product)(const GatedProductRun&);  // likewise
  bool (*rotated_product)(const RotatedProductRun&);
  const char* (*paged_attention)(const PagedAttentionRun&);
  // Bytes of workspace that this run needs, by its sizes alone; 0 where no kernel is compiled for its widths.
  int64_t (*paged_attention_bytes)(const PagedAttentionRun&);
  const char* (*token_attention)(const TokenAttentionRun&);
  bool (*takes_token_attention)(const TokenAttentionRun&);
  // Whether it takes head_weight.
  bool (*attends_into_heads)(const PagedAttentionRun&);
  const char* (*page_log_sum_exps)(const PageLogSumExpsRun&);
  bool (*takes_page_log_sum_exps)(int64_t width, bool int8_pages);
  // Units of a part that the device takes at one time; 0: no kernel for its width, or this GPU.
  int (*dense_attention_units)(int64_t width, int device);
  const char* (*dense_attention)(const DenseAttentionRun&);
  const char* (*merge_attention)(const MergeAttentionRun&);
  const char* (*packed_product)(const PackedProductRun&);
  const char* (*unpack)(const UnpackRun&);
  // ops/device_graph.h. They throw.
  void* (*record_graph)(int device, const std::function<void()>& work);
  void (*replay_graph)(void* graph);
  void (*destroy_graph)(void* graph);
};

struct DriverState {
  int driver;         // newest CUDA version that the driver runs: 1000 * major + 10 * minor; 0 = no driver
  int runtime;        // CUDA version of these libraries, likewise
  int devices;        // GPUs that can be used
  const char* error;  // why there are none, in CUDA's words; nullptr = no error
};

// The symbols of libcepe_cuda.so.
extern "C" {
DriverState cepe_cuda_driver_state();
int cepe_cuda_capability(int device);  // 90: sm_90; 0: CUDA does not say
// The kernels where this GPU has machine code for them, else nullptr: then the compositions of ATen operations run.
const CudaKernels* cepe_cuda_kernels(int device);
}

}  // namespace cepe::ops::cuda
