// Which weights of a model are kept in 8 or 4 bits when that is asked for, and how.
//   packed  every product of the decoder's layers, an lm_head of its own, query and output of the cross-attention
//   dense   embeddings (they are looked up), norms, biases, the encoder, and keys and values of the cross-attention
// The last are read by the absorbed attention as [G, D, E], transposed the one time: no product of packed rows does
// that. Unpacked each time they would cost, per byte of the packed weight, that byte, two written and two read, where a
// dense bfloat16 weight costs the two read. So 5 bytes for 2: dense takes 0.27 GB more of a 7B decoder's memory (32
// layers x 2 x 4096 x 1024), and saves 0.8 GB of traffic and 64 launches a token.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/cross_attention.h"
#include "model/decoder.h"
#include "model/linear.h"
#include "model/weight_reader.h"
#include "ops/packed_format.h"

namespace cepe::model {

// What weights are quantised to; nothing where they are not. fp8: fp8_row, int8: int8_row, int4: q4_1.
std::optional<ops::PackedFormat> quantised_format(WeightType type);
// What loading rounds each weight to at once; nothing also where calibration is to do it (calibrate.h).
std::optional<ops::PackedFormat> format_at_once(const LoadOptions& options);

// The weight in `format`, if it is dense and the format takes its width (q4_1: multiples of 32); as it is otherwise.
void quantise(Linear& linear, ops::PackedFormat format);
// The products of a part that are to be packed.
void quantise(DecoderLayer& layer, ops::PackedFormat format);
void quantise(CrossAttention& block, ops::PackedFormat format);

// Whether the tensor of this name, in any naming that checkpoints use, and shape is among the packed ones.
bool is_quantised_weight(const std::string& name, const std::vector<int64_t>& shape);

// Bytes that a tensor of a checkpoint takes in memory once it is loaded.
int64_t loaded_bytes(const std::string& name, const formats::TensorView& view, WeightType type, bool on_cpu);

}  // namespace cepe::model
