// What decoders differ in, as plain numbers. Tensor-free: config.json is read (and fuzzed) without LibTorch.
// One file per family in families/ maps its config.json and weight names to these structs; nothing else asks for a
// family.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "ops/activation_kind.h"

namespace cepe::model {

enum class RopeScaling { none, linear, dynamic, yarn, llama3 };

// Rotary position embedding; formulas in rope.h.
struct RopeConfig {
  double theta = 10000;
  int64_t width = 0;  // rotated channels of a head (<= D)
  RopeScaling scaling = RopeScaling::none;
  double factor = 1;
  int64_t original_positions = 0;  // the context the model was trained with, where the scaling needs it
  double low_frequency_factor = 1, high_frequency_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;                        // yarn
  double attention_factor = 0;                                 // yarn; 0: 0.1 ln(factor) + 1
  std::vector<float>
      divisors;  // [width / 2] what each frequency is divided by, where a file states it (GGUF rope_freqs)
};

// As config.json names it. Errors: unsupported, with those that are known.
RopeScaling rope_scaling_named(const std::string& name, const std::string& where);
// That of the field hidden_act, where there is none the one that `otherwise` names. Errors: unsupported, with the field
// and those that are known; corrupt.
ops::Activation read_activation(const base::Json& config, const std::string& where, const std::string& otherwise);

enum class NormKind { rms, rms_unit_offset, layer };
enum class QueryKeyNorm { none, per_head, whole };
// Where a layer's norms stand: before each block (Llama), after it (OLMo 2), both (Gemma 3), or before both blocks that
// then run side by side (NeoX).
enum class ResidualOrder { norm_first, norm_last, norm_both, parallel };

// Letters as in the method: L layers, H query heads, G key/value heads, D head width, C width, F feed-forward, V
// vocabulary.
struct DecoderConfig {
  std::string family;  // model_type
  int64_t vocabulary = 0, width = 0, layers = 0, heads = 0, groups = 0, head_width = 0, feed_forward = 0;
  int64_t max_positions = 0;  // the longest text; by a scaled rope, with what it stretches them to

  ops::Activation activation = ops::Activation::silu;
  bool gated = true;  // activation(gate) * up, else activation(up)
  NormKind norm = NormKind::rms;
  double norm_eps = 1e-6;
  ResidualOrder residual = ResidualOrder::norm_first;
  QueryKeyNorm query_key_norm = QueryKeyNorm::none;
  bool learned_positions = false;  // GPT-2
  RopeConfig rope;
  std::optional<RopeConfig> local_rope;  // of layers with a window, where it differs (Gemma 3)
  std::vector<int64_t> windows;          // [L] tokens a layer sees, itself included; 0 = all
  double attention_scale = 0;            // usually 1 / sqrt(D)
  double logit_cap = 0;                  // final tanh soft cap; 0 = none
  double embedding_scale = 1;            // Gemma: sqrt(C)
  bool tied = false;                     // lm_head is the embedding table
  bool query_key_value_bias = false, output_bias = false, feed_forward_bias = false;

  std::optional<int64_t> bos;
  std::vector<int64_t> eos;  // ids beyond the vocabulary are dropped
};

// The encoder: Llama blocks without the causal mask. Its own vocabulary, theta and eps.
struct EncoderConfig {
  int64_t vocabulary = 0, width = 0, layers = 0, heads = 0, groups = 0, head_width = 0, feed_forward = 0;
  ops::Activation activation = ops::Activation::silu;
  double norm_eps = 1e-6;
  RopeConfig rope;
  bool shares_embeddings = false;  // reads the decoder's frozen table; vocabulary and width are the decoder's
};

// `where` names the file in messages. Errors: corrupt (a field missing, of the wrong type, out of range, contradicting
// another), unsupported (family, rope type, feature: by name).
DecoderConfig read_decoder_config(const base::Json& config, const std::string& where);
EncoderConfig read_encoder_config(const base::Json& config, const std::string& where);
base::Json write_encoder_config(const EncoderConfig& config);

// The checks that hold for every family: positive and bounded sizes, heads divisible by groups, ...
void validate(const DecoderConfig& config, const std::string& where);

// Pieces shared by the family files.
// rope_theta + rope_scaling{type|rope_type} (published models) or rope_parameters (transformers 5; `layer_type` picks
// the part of a per-layer-type object). `width` = rotated channels before partial_rotary_factor.
RopeConfig read_rope(const base::Json& config, int64_t head_width, const std::string& where,
                     const char* layer_type = nullptr);
// Of eos_token_id, a number or a list, those that decoder.eos does not have yet.
void add_end_tokens(const base::Json& config, DecoderConfig& decoder, const std::string& where);
// Fields whose names most families share: hidden_size, num_hidden_layers, ...
DecoderConfig read_common(const base::Json& config, const std::string& where);
// A copy in which the fields that are absent (not: null) have these values, as the family's reference code has them.
base::Json with_defaults(const base::Json& config, const base::Json& defaults);
// [L] from layer_types, else every pattern-th layer is full, else the same window everywhere.
std::vector<int64_t> read_windows(const base::Json& config, int64_t layers, const std::string& where);

}  // namespace cepe::model
