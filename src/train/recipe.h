// A recipe: everything that a training run is, as YAML (docs/training.md explains each field; recipes/ holds some).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/settings.h"
#include "data/sampler.h"

namespace cepe::train {

enum class Stage {
  mlm,      // encoder pre-training: masked tokens of 512-token texts
  warmup,   // encoder and decoder get the same text, and cross-attention learns to copy
  cepe,     // the text before a window is its context; cross-entropy
  ceped,    // the same, and the frozen decoder that reads context and text directly is the teacher
  decoder,  // the decoder itself or a LoRA on it, without context: baselines, and tiny models from nothing
};
Stage stage_of(const std::string& name);  // Errors: invalid_argument, with the names known

struct LowRankSettings {
  int64_t rank = 0;  // 0: none
  double alpha = 0;  // scale = alpha / rank; 0: alpha = 2 * rank
  std::vector<std::string> targets = {"q_proj", "v_proj"};
};

struct DecoderSettings {
  std::string model;           // "": the default one; a folder, a .gguf file, org/name
  std::string config;          // instead: config.json of a model made from nothing (stage decoder, or tiny tests)
  std::string dtype = "auto";  // auto: bfloat16 on a GPU, float32 on a CPU; float32, bfloat16
  std::string rope_scaling;    // "", linear, yarn, dynamic: the baselines of longer windows
  double rope_factor = 1;
  LowRankSettings low_rank;
};

struct AdapterSettings {
  std::string from;                 // folder of an adapter to go on with
  std::string encoder = "decoder";  // decoder: its own first layers; random; or a folder of stage mlm
  int64_t encoder_layers = 6;       // of `decoder` and `random`
  int64_t encoder_width = 0;        // of `random`: width, heads and feed-forward width
  int64_t encoder_heads = 0;
  int64_t encoder_feed_forward = 0;
  std::string cross_attention_layers;  // "8-29"; "": all
  std::string start = "scaled";        // how cross-attention starts (cepe adapter init --help)
  int64_t chunk_size = 256;
};

struct DataSettings {
  std::string corpus;   // folder made by `cepe data build`
  double held_out = 0;  // share of documents kept for validation
  std::vector<data::MixturePart> mixture;
  // Instead of text of the corpus, samples that were prepared beforehand (MDS folders, data/prepared_samples.h).
  std::string samples;  // windows and the text before them; "": they stand in the other folders
  std::string stored_logits;
  std::string retrieved;
  std::string neighbours = "none";  // of retrieved chunks: joint, separate

  bool prepared() const { return !samples.empty() || !stored_logits.empty() || !retrieved.empty(); }
};

// A stretch of training with one shape of batch. Sample = context_tokens, then `windows` windows of decoder_tokens;
// each window sees all chunks before it.
struct PhaseSettings {
  int64_t steps = 0;
  int64_t batch = 8;        // samples a step
  int64_t micro_batch = 0;  // samples at one time; 0: all
  int64_t context_tokens = 0;
  int64_t decoder_tokens = 512;
  int64_t windows = 8;
  // Variations, drawn for each micro-batch:
  double short_context = 0;    // how often windows see only the nearest 1, 2 or 4 chunks
  double skipped_nearest = 0;  // how often windows do not see their nearest 1 to 8 chunks
  double no_context = 0;       // how often they see nothing
  double others = 0;           // how often they also see other_tokens of another sample
  int64_t other_tokens = 0;
  double mask = 0;  // mask_prob and mask_seq_prob of the published code
  double mask_whole = 0.1;
};

// In how many micro-batches a step is made.
inline int64_t micro_batches(const PhaseSettings& phase) {
  return phase.micro_batch > 0 ? phase.batch / phase.micro_batch : 1;
}

struct LossSettings {
  double cross_entropy = 1;  // lm_loss_cof
  double divergence = 0;     // kl_loss_cof
  std::string mode =
      "full";  // smooth_X, drop (over the teacher's best `top` and all others), full: over the vocabulary
  int64_t top = 50;
  double mask = 0.3;           // stage mlm: share of masked tokens
  int64_t rows_per_chunk = 0;  // of logits; 0: about 256 MiB
};

struct OptimiserSettings {
  std::string kind = "adamw";  // adamw, muon (matrices; AdamW for the rest)
  double rate = 3e-4;
  double encoder_rate = 1;  // times rate
  double vector_rate = 1;   // times rate: what Muon leaves to AdamW
  double weight_decay = 0;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double momentum = 0.95;      // of Muon
  double clip = 1;             // of the norm of all gradients; 0: none
  bool master_weights = true;  // float32 beside bfloat16; false: bfloat16 with stochastic rounding
};

struct ScheduleSettings {
  std::string kind = "cosine";  // cosine, linear, constant
  double warm_up = 0.04;        // share of all steps
  double decay_from = 0;        // share of all steps at full rate before it falls
};

struct CheckpointSettings {
  double minutes = 10;
  int64_t steps = 0;  // also every so many steps; 0: only by time
  int64_t keep = 2;
};

struct ValidationSettings {
  int64_t steps = 0;  // every so many steps, and at the end; 0: never
  int64_t samples = 16;
  int64_t decoder_tokens = 0;  // 0: the last phase's
  std::vector<int64_t> context_tokens = {0, 2048, 8192};
};

struct Recipe {
  std::string stage = "cepe";
  std::string output;  // folder: checkpoints, logs, and at the end the adapter or model
  uint64_t seed_of_data() const { return static_cast<uint64_t>(seed); }
  int64_t seed = 0;
  std::vector<std::string> trainable = {"encoder", "cross_attention"};  // also decoder, low_rank
  DecoderSettings decoder;
  AdapterSettings adapter;
  DataSettings data;
  std::vector<PhaseSettings> phases;
  LossSettings loss;
  OptimiserSettings optimiser;
  ScheduleSettings schedule;
  CheckpointSettings checkpoint;
  ValidationSettings validation;
  bool recompute = false;      // activation checkpointing
  bool deterministic = false;  // bit-equal runs on a GPU too (flash attention instead of cuDNN's)
  double peak_tflops = 0;      // of the device, for MFU; 0: unknown
  int64_t log_steps = 10;

  int64_t steps() const;
};

// Errors: invalid_argument, naming the field and what goes: a value out of range, or fields that do not go together.
void validate(const Recipe& recipe);
// YAML, with "phases.0.batch=4" and the like over it; what is in neither keeps its default. `where` names the text in
// messages. Errors: as validate, with the line; invalid_argument for an unknown field (with the nearest known one) and
// for what is no YAML.
Recipe read_recipe(const std::string& yaml, const std::string& where, const std::vector<std::string>& overrides);
// As YAML that read_recipe takes back; with_help adds what each field is and may hold as comments.
std::string print_recipe(const Recipe& recipe, bool with_help);

}  // namespace cepe::train
