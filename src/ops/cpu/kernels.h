// The CPU kernels of this layer, compiled three times: portable, AVX2 + FMA + F16C, AVX-512 (F, BW, DQ, VL).
// Plain pointers in, one table of functions a level; the level is chosen at run time. The bodies are templates over a
// vector type (packed_kernel.h, attention_kernel.h, elementwise_kernel.h) and call nothing that is not named after that
// type: the linker keeps one copy of a shared inline function, which might be the one for a newer processor.
#pragma once

#include <cstdint>
#include <string_view>

namespace cepe::ops::cpu {

inline constexpr int tile_rows = 16;                   // output rows that stand interleaved in a packed weight
enum class PackedKind { q4_0, q4_1, q8_0, int8_row };  // in the order of ops::PackedFormat, whose fp8_row has none

// A packed weight as the kernels read it. Layout of `data`, tile by tile of 16 output rows:
//   block formats: for each block of 32 inputs: float16 d[16]; float16 m[16] (q4_1 only);
//     4 bits: uint32 word[4][16], nibble k of word[w][r] = input 8w + k of row r;   8 bits: int8 q[32][16]
//   int8_row: int8 q[in][16]
// so that one broadcast activation meets 16 rows in a register and no sum over lanes is needed.
struct PackedMatrix {
  const uint8_t* data;
  const float* scales;   // int8_row: [tiles * 16]
  int64_t out_features;  // rows beyond it in the last tile are zero
  int64_t in_features;
  int64_t bytes_per_tile;
};

// X: float, or pairs of bfloat16: of inputs i and i + 4 of each eight, i < 4, in an uint32_t (i in its lower half).
template <class X>
struct PackedProductOf {
  PackedMatrix weight;
  const X* x;           // [N, in] as panels of row_block, then ever smaller powers of two, rows: [in, rows of panel]
  const float* x_sums;  // the same for sums of 32 inputs: [in / 32, rows of panel]
  int64_t rows;         // N
  float* y;             // [N, out]
};
using PackedProduct = PackedProductOf<float>;
using PackedPairProduct = PackedProductOf<uint32_t>;

struct AttentionRows {  // consecutive cached rows of one page
  const void* keys;
  const void* values;
  int64_t key_stride;  // elements between rows
  int64_t value_stride;
  int64_t rows;
  const void* next_keys;  // what will be read afterwards, to be prefetched
  const void* next_values;
};

// State of one worker. Dimensions are padded to a multiple of `attention_step`; under `bfloat16` the elements of each
// step stand as [evens | odds].
struct AttentionJob {
  int64_t queries;      // R
  int64_t groups;       // G
  int64_t key_width;    // D, padded
  int64_t value_width;  // Dv, padded
  float scale;
  const float* query;  // [G, R, D]
  float* output;       // [G, R, Dv] sums of exp(s - maximum) v
  float* maximum;      // [G, R]
  float* denominator;  // [G, R]
  float* scores;       // [R, attention_block] scratch
};
inline constexpr int attention_block = 32;  // rows whose scores are made before their values are read

// State of one worker of the kernel of pairs (pair_attention_kernel.h). Lanes are query rows; keys, values: bfloat16.
struct PairAttentionJob {
  int64_t groups;       // G
  int64_t blocks;       // of `lanes` query rows of a group; rows beyond the last are zeros
  int64_t key_width;    // D, a multiple of 2
  int64_t value_width;  // Dv, a multiple of 16
  float scale;
  const uint32_t* query;  // [G, blocks, D / 2, lanes] pairs of bfloat16, the first in the lower half
  float* output;          // [G, blocks, Dv, lanes] sums of exp(s - maximum) v
  float* maximum;         // [G, blocks, lanes] in whole steps of 1/128 of the base-2 logarithm (power_table.h)
  float* denominator;     // [G, blocks, lanes]
  float* scores;          // [pair_block, 3, lanes] scratch
  uint32_t* weights;      // [pair_block / 2, 3, lanes] scratch
  uint32_t* values;       // [pair_block / 2, Dv] scratch
  uint16_t* keys;         // [pair_block, D] scratch
};
inline constexpr int pair_block = 64;  // rows whose scores are made before their values are read
using AttendPairs = void (*)(const PairAttentionJob&, const AttentionRows&);

// State of one worker of a product of rows and columns in 8 bits (int8_product_kernel.h); W: the lanes of its kernel.
struct Int8ProductJob {
  int64_t width;               // E, a multiple of 4 W
  int64_t outputs;             // N; columns beyond it, up to a multiple of 2 W, are zeros
  const int8_t* columns;       // [N / W, E / 4, W, 4]
  const float* column_scales;  // [N]
  int8_t* rows;                // [2 W, E] scratch
  int32_t* sums;               // [2, 2 W, 2 W] scratch
};
struct Int8ProductRows {  // consecutive rows
  const int8_t* values;   // [count, E]
  const float* scales;
  int64_t count;
  uint16_t* to;  // [count, N] bfloat16
};
using MultiplyInt8 = void (*)(const Int8ProductJob&, const Int8ProductRows&);

// Keys and values in 8 bits of up to int8_block consecutive rows of a context, as int8_context_kernel.h writes and
// int8_attention_kernel.h reads them: of each group, one after the other,
//   uint8 keys[D / 4][64][4]     element 4 i + k of a row's key, plus 128, at [i][row][k]; times the row's scale
//   int8  values[16][Dv][4]      row 4 i + k of a column at [i][column][k]; times the column's scale
//   float key_scales[64], value_scales[Dv]
// Rows that are not there are zeros.
inline constexpr int int8_block = 64;
struct Int8BlockShape {
  int64_t groups;       // G
  int64_t key_width;    // D, a multiple of 4
  int64_t value_width;  // Dv, a multiple of 64

  constexpr int64_t values() const { return int8_block * key_width; }  // where they begin in a group
  constexpr int64_t scales() const { return values() + int8_block * value_width; }
  constexpr int64_t group_bytes() const { return scales() + 4 * (int8_block + value_width); }
  constexpr int64_t bytes() const { return groups * group_bytes(); }
};

inline constexpr int64_t int8_rows_read_on = 31;  // a matrix unit takes query rows by 32

// State of one worker of attention over such blocks.
struct Int8AttentionJob {
  Int8BlockShape shape;
  int64_t queries;              // R
  const int8_t* query;          // [G, R, D], and int8_rows_read_on rows that are read and do not count
  const float* query_scales;    // [G, R] what makes the base-2 logarithm of a weight from the sum and the key's scale
  const int32_t* query_starts;  // [G, R] -128 times the sum of the query: what the keys' 128 adds
  float* output;                // [G, R, Dv] sums of 2^(s - maximum) v
  float* maximum;               // [G, R] of base-2 logarithms
  float* denominator;           // [G, R, 16]: its sum is the denominator
};
struct Int8Blocks {  // in the order in which they are read, wherever each stands
  const uint8_t* const* data;
  const int32_t* rows;
  int64_t count;
};

// What makes such blocks: rows of states in 8 bits times weights in 8 bits, both with a scale a row.
struct Int8ContextJob {
  Int8BlockShape shape;
  int64_t width;               // E, a multiple of 4
  const uint8_t* columns;      // of each group's keys, then values: [width of these / 64, E / 4, 64, 4], plus 128
  const float* column_scales;  // in the same order; columns beyond D up to a multiple of 64 are 128 and 0
  float* products;             // [64, max(D up to a multiple of 64, Dv)] scratch
  uint8_t* bytes;              // [D up to a multiple of 64] scratch
};
struct Int8ContextRows {  // of one block
  const int8_t* values;   // [count, E]
  const float* scales;    // [count]
  int64_t count;          // 1 to int8_block
  uint8_t* to;
};

struct RotaryRows {
  const void* x;
  void* y;           // [N, heads, D] contiguous
  const float* cos;  // [N, half]
  const float* sin;
  int64_t heads, width, half;
  int64_t row_stride, head_stride;  // of x, in elements
  bool backwards = false;           // by the angles' negatives: what the gradient takes
};

struct RmsNormGradient {
  const void* x;           // [N, width]
  const void* weight;      // [width]
  const void* y_gradient;  // [N, width]
  void* x_gradient;        // [N, width], or null
  int64_t width;
  float eps;
  bool unit_offset;
};

struct Kernels {
  int row_block;       // rows of x that one pass over a tile multiplies
  int attention_step;  // elements of a key that one step reads

  using Product = void (*)(const PackedProduct&, int64_t tile_begin, int64_t tile_end);
  Product multiply[4];  // by PackedKind
  // Tiles to columns: to[i * stride + (tile - tile_begin) * 16 + r] = weight of row r, input i.
  using Unpack = void (*)(const PackedMatrix&, int64_t tile_begin, int64_t tile_end, int64_t stride, void* to);
  Unpack unpack_float[4], unpack_bfloat16[4];

  using Attend = void (*)(const AttentionJob&, const AttentionRows&);
  Attend attend_bfloat16, attend_float;

  using RmsNorm = void (*)(const void* x, const void* weight, void* y, int64_t rows, int64_t width, float eps,
                           bool unit_offset);
  RmsNorm rms_norm_float, rms_norm_bfloat16;
  // The weight's gradient of these rows is added to weight_sums [width], where that is not null.
  using RmsNormBackward = void (*)(const RmsNormGradient&, int64_t row_begin, int64_t row_end, float* weight_sums);
  RmsNormBackward rms_norm_backward_float, rms_norm_backward_bfloat16;
  using LayerNorm = void (*)(const void* x, const void* weight, const void* bias, void* y, int64_t rows, int64_t width,
                             float eps);
  LayerNorm layer_norm_float, layer_norm_bfloat16;
  using Rotate = void (*)(const RotaryRows&, int64_t row_begin, int64_t row_end);
  Rotate rotate_float, rotate_bfloat16;
  using Gated = void (*)(const void* gate_up, void* y, int64_t rows, int64_t width);
  Gated silu_float, silu_bfloat16, gelu_tanh_float, gelu_tanh_bfloat16, relu_float, relu_bfloat16;
  using GatedBackward = void (*)(const void* gate_up, const void* y_gradient, void* gate_up_gradient, int64_t rows,
                                 int64_t width);
  GatedBackward silu_backward_float, silu_backward_bfloat16;
  using Int8Rows = void (*)(const void* x, uint8_t* y, int64_t rows, int64_t width);  // packed: ops/int8_rows.h
  Int8Rows int8_rows_float, int8_rows_bfloat16;
};

enum class Level { portable, avx2, avx512 };
// The best level this processor has, or that of the environment's CEPE_CPU_LEVEL (portable, avx2, avx512) where the
// processor has it. `choose_level` overrides it for this process; false where the processor lacks it.
Level level();
// What CEPE_CPU_LEVEL with that value asks for; "": the best. Of a level that there is not, or that this processor
// lacks, it warns, and gives the best.
Level level_asked_for(std::string_view name);
bool choose_level(Level level);
const Kernels& kernels();

// Kernels over pairs of bfloat16, whose lanes are query rows: by the matrix unit (AMX), by AVX512_BF16 (on AMD's
// processors; Intel's take two cycles for what two float32 products do in one), both with AVX512_VBMI, or plain C++
// that is no faster than attend_bfloat16. At the levels below avx512 the last.
struct PairKernel {
  AttendPairs attend;
  int lanes;
  bool fast;
};
PairKernel pair_kernel();
bool has_pair_instructions();  // AVX512_BF16 and AVX512_VBMI, what the vector kernel needs
PairKernel portable_pair_kernel();
PairKernel portable_tile_kernel();
PairKernel avx512bf16_pair_kernel();
PairKernel amx_pair_kernel();

// Products of packed weights with rows in bfloat16, by AVX512_BF16 where pair_kernel has it; else plain C++, which is
// slower than any other way.
struct PackedPairKernel {
  void (*multiply[4])(const PackedPairProduct&, int64_t tile_begin, int64_t tile_end);  // by PackedKind
  int row_block;
  bool fast;
};
PackedPairKernel packed_pair_kernel();
PackedPairKernel portable_packed_pair_kernel();
PackedPairKernel avx512bf16_packed_pair_kernel();

// By the matrix unit, or plain C++ that is slower than any other way.
struct Int8Kernel {
  MultiplyInt8 multiply;
  int lanes;
  bool fast;
};
Int8Kernel int8_kernel();
Int8Kernel portable_int8_kernel();
Int8Kernel amx_int8_kernel();

// Contexts in 8 bits: AMX and AVX512_VNNI, AVX512_VNNI alone, AVX-VNNI, AVX2 or plain C++. All give the same sums of
// bytes.
struct Int8ContextKernel {
  void (*attend)(const Int8AttentionJob&, const Int8Blocks&);
  void (*project)(const Int8ContextJob&, const Int8ContextRows&);
};
Int8ContextKernel int8_context_kernel();
bool has_byte_products();        // AVX512_VNNI
bool has_short_byte_products();  // AVX-VNNI
Int8ContextKernel portable_int8_context_kernel();
Int8ContextKernel avx2_int8_context_kernel();
Int8ContextKernel avxvnni_int8_context_kernel();
Int8ContextKernel avx512vnni_int8_context_kernel();
Int8ContextKernel amx_int8_context_kernel();      // by the matrix unit; vectors for what is not whole tiles
Int8ContextKernel portable_int8_context_tiles();  // likewise, in plain C++

const Kernels& portable_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();

}  // namespace cepe::ops::cpu
