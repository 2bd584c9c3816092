#include "train/recipe.h"

#include <algorithm>

#include "base/error.h"
#include "model/losses.h"

namespace cepe::train {
namespace {

using base::Error;
using base::ErrorCode;

constexpr double most_tokens = 1 << 24;

void require(bool holds, const std::string& message) {
  if (!holds) throw Error(ErrorCode::invalid_argument, message);
}

}  // namespace

template <class Visitor>
void visit(Visitor& visitor, LowRankSettings& low_rank) {
  visitor.field("rank", low_rank.rank, {.help = "of the added matrices; 0: no LoRA", .least = 0, .most = 4096});
  visitor.field("alpha", low_rank.alpha, {.help = "scale = alpha / rank; 0: twice the rank", .least = 0});
  visitor.field("targets", low_rank.targets, {.help = "which projections", .choices = {"q_proj", "k_proj", "v_proj"}});
}

template <class Visitor>
void visit(Visitor& visitor, DecoderSettings& decoder) {
  visitor.field("model", decoder.model, {.help = "folder, .gguf file or org/name; empty: SmolLM2-135M-Instruct"});
  visitor.field("config", decoder.config, {.help = "config.json of a decoder to make from nothing, instead of model"});
  visitor.field("dtype", decoder.dtype,
                {.help = "of the weights; auto: bfloat16 on a GPU, float32 on a CPU",
                 .choices = {"auto", "float32", "bfloat16"}});
  visitor.field("rope_scaling", decoder.rope_scaling,
                {.help = "stretches the decoder's positions", .choices = {"", "linear", "yarn", "dynamic"}});
  visitor.field("rope_factor", decoder.rope_factor, {.help = "by this factor", .least = 1, .most = 1e6});
  visitor.field("low_rank", decoder.low_rank, {.help = "LoRA on the decoder's self-attention"});
}

template <class Visitor>
void visit(Visitor& visitor, AdapterSettings& adapter) {
  visitor.field("from", adapter.from, {.help = "adapter folder to start from; empty: a new one"});
  visitor.field("encoder", adapter.encoder,
                {.help = "where a new encoder comes from: decoder (its own first layers), random, or a folder made by "
                         "stage mlm"});
  visitor.field("encoder_layers", adapter.encoder_layers, {.help = "of a new encoder", .least = 1, .most = 4096});
  visitor.field("encoder_width", adapter.encoder_width, {.help = "of a random encoder", .least = 0, .most = 65536});
  visitor.field("encoder_heads", adapter.encoder_heads, {.help = "of a random encoder", .least = 0, .most = 4096});
  visitor.field("encoder_feed_forward", adapter.encoder_feed_forward,
                {.help = "of a random encoder", .least = 0, .most = 1 << 20});
  visitor.field("cross_attention_layers", adapter.cross_attention_layers,
                {.help = "decoder layers such as 8-29 or 0,4-7; empty: all"});
  visitor.field("start", adapter.start,
                {.help = "how cross-attention starts", .choices = {"scaled", "copy", "zero", "normal", "none"}});
  visitor.field("chunk_size", adapter.chunk_size, {.help = "tokens of a chunk", .least = 1, .most = 65536});
}

template <class Visitor>
void visit(Visitor& visitor, DataSettings& data) {
  visitor.field("corpus", data.corpus,
                {.help = "folder made by cepe data build; beside samples, stored_logits or retrieved: of validation"});
  visitor.field("held_out", data.held_out, {.help = "share of documents for validation", .least = 0, .most = 0.5});
  visitor.field("mixture", data.mixture, {.help = "domains and their weights; empty: all documents as one"});
  visitor.field("samples", data.samples,
                {.help = "instead of the corpus (stages cepe and ceped): MDS folder of token_ids (the window) and "
                         "prev_token_ids (its context); empty: these stand in stored_logits or retrieved"});
  visitor.field("stored_logits", data.stored_logits,
                {.help = "stage ceped: MDS folder of target_prob [T, top + 1] and target_index [T, top], the teacher's "
                         "answers for token_ids; no teacher is run then"});
  visitor.field("retrieved", data.retrieved,
                {.help = "stages cepe and ceped: MDS folder of retrieved_token_ids [K, chunk_size], the context in "
                         "place of the text before; where there are retrieval_scores, the best"});
  visitor.field("neighbours", data.neighbours,
                {.help = "retrieved_neighbor_token_ids: left out, in one chunk with the retrieved, or one of its own",
                 .choices = {"none", "joint", "separate"}});
}

template <class Visitor>
void visit(Visitor& visitor, PhaseSettings& phase) {
  visitor.field("steps", phase.steps, {.help = "of this phase", .least = 1, .most = 1e9});
  visitor.field("batch", phase.batch, {.help = "samples a step", .least = 1, .most = 1 << 20});
  visitor.field("micro_batch", phase.micro_batch, {.help = "samples at a time; 0: all", .least = 0, .most = 1 << 20});
  visitor.field("context_tokens", phase.context_tokens,
                {.help = "text before a sample's first window", .least = 0, .most = most_tokens});
  visitor.field("decoder_tokens", phase.decoder_tokens,
                {.help = "of a window; stage mlm: of a text", .least = 2, .most = most_tokens});
  visitor.field("windows", phase.windows, {.help = "of a sample, one after the other", .least = 1, .most = 4096});
  visitor.field("short_context", phase.short_context,
                {.help = "how often windows see only their nearest 1, 2 or 4 chunks", .least = 0, .most = 1});
  visitor.field("skipped_nearest", phase.skipped_nearest,
                {.help = "how often windows do not see their nearest 1 to 8 chunks", .least = 0, .most = 1});
  visitor.field("no_context", phase.no_context, {.help = "how often windows see nothing", .least = 0, .most = 1});
  visitor.field("others", phase.others, {.help = "how often windows see another sample too", .least = 0, .most = 1});
  visitor.field("other_tokens", phase.other_tokens, {.help = "and how much of it", .least = 0, .most = most_tokens});
  visitor.field("mask", phase.mask, {.help = "share of chunks with masked tokens", .least = 0, .most = 1});
  visitor.field("mask_whole", phase.mask_whole, {.help = "share of these masked wholly", .least = 0, .most = 1});
}

template <class Visitor>
void visit(Visitor& visitor, LossSettings& loss) {
  visitor.field("cross_entropy", loss.cross_entropy, {.help = "its weight", .least = 0});
  visitor.field("divergence", loss.divergence, {.help = "weight of KL(teacher || student)", .least = 0});
  visitor.field("mode", loss.mode,
                {.help = "of the divergence: full (vocabulary), smooth_X or drop (the teacher's top)"});
  visitor.field("top", loss.top, {.help = "teacher's tokens of smooth_X and drop", .least = 1, .most = 1 << 20});
  visitor.field("mask", loss.mask, {.help = "stage mlm: share of masked tokens", .least = 0, .most = 1});
  visitor.field("rows_per_chunk", loss.rows_per_chunk,
                {.help = "logits made at one time; 0: about 256 MiB of them", .least = 0, .most = 1 << 24});
}

template <class Visitor>
void visit(Visitor& visitor, OptimiserSettings& optimiser) {
  visitor.field("kind", optimiser.kind,
                {.help = "muon: for matrices, AdamW for the rest", .choices = {"adamw", "muon"}});
  visitor.field("rate", optimiser.rate, {.help = "peak learning rate", .least = 0, .most = 10});
  visitor.field("encoder_rate", optimiser.encoder_rate,
                {.help = "of the encoder, times rate", .least = 0, .most = 100});
  visitor.field("vector_rate", optimiser.vector_rate,
                {.help = "of what Muon leaves to AdamW, times rate", .least = 0, .most = 100});
  visitor.field("weight_decay", optimiser.weight_decay,
                {.help = "share of each weight taken off a step, times the rate", .least = 0, .most = 10});
  visitor.field("beta1", optimiser.beta1,
                {.help = "of AdamW: how long gradients count; below 1", .least = 0, .most = 1});
  visitor.field("beta2", optimiser.beta2,
                {.help = "of AdamW: how long their squares count; below 1", .least = 0, .most = 1});
  visitor.field("eps", optimiser.eps,
                {.help = "of AdamW: added to the root of the squares", .least = 1e-30, .most = 1});
  visitor.field("momentum", optimiser.momentum, {.help = "of Muon", .least = 0, .most = 1});
  visitor.field("clip", optimiser.clip, {.help = "largest norm of all gradients; 0: any", .least = 0});
  visitor.field("master_weights", optimiser.master_weights,
                {.help = "float32 beside bfloat16; false: bfloat16 with stochastic rounding"});
}

template <class Visitor>
void visit(Visitor& visitor, ScheduleSettings& schedule) {
  visitor.field("kind", schedule.kind, {.help = "how the rate falls", .choices = {"cosine", "linear", "constant"}});
  visitor.field("warm_up", schedule.warm_up, {.help = "share of all steps", .least = 0, .most = 1});
  visitor.field("decay_from", schedule.decay_from,
                {.help = "share of all steps before it falls", .least = 0, .most = 1});
}

template <class Visitor>
void visit(Visitor& visitor, CheckpointSettings& checkpoint) {
  visitor.field("minutes", checkpoint.minutes, {.help = "between two of them; 0: by steps only", .least = 0});
  visitor.field("steps", checkpoint.steps, {.help = "also every so many steps; 0: by time only", .least = 0});
  visitor.field("keep", checkpoint.keep, {.help = "the newest so many", .least = 1, .most = 1000});
}

template <class Visitor>
void visit(Visitor& visitor, ValidationSettings& validation) {
  visitor.field("steps", validation.steps, {.help = "every so many steps, and at the end; 0: never", .least = 0});
  visitor.field("samples", validation.samples, {.help = "held-out samples", .least = 1, .most = 1 << 20});
  visitor.field("decoder_tokens", validation.decoder_tokens,
                {.help = "of the window; 0: the last phase's", .least = 0, .most = most_tokens});
  visitor.field("context_tokens", validation.context_tokens, {.help = "before it", .least = 0, .most = most_tokens});
}

template <class Visitor>
void visit(Visitor& visitor, Recipe& recipe) {
  visitor.field("stage", recipe.stage,
                {.help = "what is learned", .choices = {"mlm", "warmup", "cepe", "ceped", "decoder"}});
  visitor.field("output", recipe.output, {.help = "folder for checkpoints, logs and the result"});
  visitor.field("seed", recipe.seed, {.help = "of new weights, samples and noise", .least = 0});
  visitor.field(
      "trainable", recipe.trainable,
      {.help = "everything else is frozen", .choices = {"encoder", "cross_attention", "decoder", "low_rank"}});
  visitor.field("decoder", recipe.decoder);
  visitor.field("adapter", recipe.adapter);
  visitor.field("data", recipe.data);
  visitor.field("phases", recipe.phases, {.help = "one after the other"});
  visitor.field("loss", recipe.loss);
  visitor.field("optimiser", recipe.optimiser);
  visitor.field("schedule", recipe.schedule);
  visitor.field("checkpoint", recipe.checkpoint);
  visitor.field("validation", recipe.validation);
  visitor.field("recompute", recipe.recompute, {.help = "activation checkpointing: less memory, a third more work"});
  visitor.field("deterministic", recipe.deterministic, {.help = "bit-equal runs on a GPU too"});
  visitor.field("peak_tflops", recipe.peak_tflops, {.help = "of the device, for MFU; 0: unknown", .least = 0});
  visitor.field("log_steps", recipe.log_steps, {.help = "steps between two lines", .least = 1});
}

Stage stage_of(const std::string& name) {
  if (name == "mlm") return Stage::mlm;
  if (name == "warmup") return Stage::warmup;
  if (name == "cepe") return Stage::cepe;
  if (name == "ceped") return Stage::ceped;
  if (name == "decoder") return Stage::decoder;
  throw Error(ErrorCode::invalid_argument, "stage '" + name + "': known are mlm, warmup, cepe, ceped, decoder");
}

int64_t Recipe::steps() const {
  int64_t total = 0;
  for (const PhaseSettings& phase : phases) total += phase.steps;
  return total;
}

void validate(const PhaseSettings& phase) {
  const int64_t micro = phase.micro_batch == 0 ? phase.batch : phase.micro_batch;
  require(phase.batch % micro == 0,
          "batch " + std::to_string(phase.batch) + " is no multiple of micro_batch " + std::to_string(micro));
  require(phase.others == 0 || micro > 1, "others: a micro_batch of one sample has no other sample to see");
}

namespace {

std::string multiple_of(const char* field, int64_t value, int64_t chunk) {
  return std::string(field) + " " + std::to_string(value) + " is no multiple of adapter.chunk_size " +
         std::to_string(chunk);
}

// Which of a phase's fields mean anything in a stage.
void check_fields(const PhaseSettings& phase, const Recipe& recipe, const std::string& where) {
  const Stage stage = stage_of(recipe.stage);
  const bool has_context = stage == Stage::cepe || stage == Stage::ceped;
  const bool cut = phase.short_context > 0 || phase.skipped_nearest > 0 || phase.others > 0;
  require(has_context || phase.context_tokens == 0,
          where + "context_tokens: stage " + recipe.stage + " has no text before its windows");
  require(has_context || (!cut && phase.no_context == 0),
          where + "short_context, skipped_nearest, no_context, others: stage " + recipe.stage + " has no context");
  require((stage != Stage::mlm && stage != Stage::warmup) || phase.windows == 1,
          where + "windows: stage " + recipe.stage + " has 1, the text itself");
  require(phase.mask == 0 || stage == Stage::warmup || (has_context && phase.windows == 1 && !cut),
          where + "mask: only for contexts of one window, without short_context, skipped_nearest and others");
}

// Everything that is encoded comes in whole chunks.
void check_chunks(const PhaseSettings& phase, const Recipe& recipe, const std::string& where) {
  const int64_t chunk = recipe.adapter.chunk_size;
  require(phase.context_tokens % chunk == 0, where + multiple_of("context_tokens", phase.context_tokens, chunk));
  require(phase.windows == 1 || phase.decoder_tokens % chunk == 0,
          where + multiple_of("decoder_tokens", phase.decoder_tokens, chunk) + ", as more windows than one need");
  require(stage_of(recipe.stage) != Stage::warmup || phase.decoder_tokens % chunk == 0,
          where + multiple_of("decoder_tokens", phase.decoder_tokens, chunk) + ", as stage warmup needs");
  require(phase.other_tokens % chunk == 0 && (phase.others == 0) == (phase.other_tokens == 0),
          where + "others and other_tokens (a multiple of adapter.chunk_size) go together");
  const int64_t sample = phase.context_tokens + phase.windows * phase.decoder_tokens;
  require(phase.other_tokens <= sample, where + "other_tokens " + std::to_string(phase.other_tokens) +
                                            ": a sample has only " + std::to_string(sample));
}

}  // namespace

// Samples that were prepared beforehand are one window each.
void validate_prepared(const Recipe& recipe) {
  const DataSettings& data = recipe.data;
  require(data.neighbours == "none" || !data.retrieved.empty(), "data.neighbours: needs data.retrieved");
  if (!data.prepared()) return;
  const Stage stage = stage_of(recipe.stage);
  require(stage == Stage::cepe || stage == Stage::ceped,
          "data.samples, data.stored_logits and data.retrieved are for the stages cepe and ceped");
  require(data.stored_logits.empty() || stage == Stage::ceped, "data.stored_logits: is for stage ceped");
  require(data.stored_logits.empty() || recipe.loss.mode != "full",
          "loss.mode: full needs the teacher itself; stored logits are its best tokens: smooth_X or drop");
  require(recipe.validation.steps == 0 || !data.corpus.empty(),
          "validation: is on a corpus; set data.corpus, or validation.steps to 0");
  for (size_t i = 0; i < recipe.phases.size(); ++i) {
    const PhaseSettings& phase = recipe.phases[i];
    const std::string where = "phases." + std::to_string(i) + ": ";
    require(phase.windows == 1, where + "windows " + std::to_string(phase.windows) + "; a prepared sample has 1");
    require(data.neighbours != "separate" || phase.context_tokens % (2 * recipe.adapter.chunk_size) == 0,
            where + "context_tokens: with data.neighbours separate, a multiple of two chunks");
  }
}

// Of AdamW's divisors none may be zero.
void check_optimiser(const OptimiserSettings& optimiser) {
  require(optimiser.beta1 < 1, "optimiser.beta1: must be below 1");
  require(optimiser.beta2 < 1, "optimiser.beta2: must be below 1");
}

void check_loss(const LossSettings& loss, const std::string& stage) {
  const bool distils = stage_of(stage) == Stage::ceped;
  require(!distils || loss.divergence > 0, "loss.divergence: stage ceped needs it above 0");
  require(distils || loss.divergence == 0, "loss.divergence: stage " + stage + " has no teacher; set it to 0");
  require(distils || loss.cross_entropy > 0, "loss.cross_entropy: stage " + stage + " needs it above 0");
  require(stage_of(stage) != Stage::mlm || loss.mask > 0, "loss.mask: stage mlm needs it above 0");
  if (!distils || loss.mode == "full") return;
  try {
    model::distillation_mode(loss.mode);
  } catch (const Error&) {
    throw Error(
        ErrorCode::invalid_argument,
        "loss.mode '" + loss.mode + "': known are full, drop and smooth_X with 0 <= X < 1, such as smooth_1e-6");
  }
}

// Fields of a new adapter, which one that is there already, and a stage without, pass over.
void check_adapter(const AdapterSettings& adapter, const std::string& stage) {
  const bool has_adapter = stage_of(stage) != Stage::mlm && stage_of(stage) != Stage::decoder;
  require(has_adapter || adapter.from.empty(), "adapter.from: stage " + stage + " has no adapter");
  if (!has_adapter) return;
  const bool random = adapter.encoder == "random";
  if (adapter.from.empty()) {
    require(random || (adapter.encoder_width == 0 && adapter.encoder_heads == 0 && adapter.encoder_feed_forward == 0),
            "adapter.encoder_width, encoder_heads, encoder_feed_forward: are for adapter.encoder random; it is '" +
                adapter.encoder + "'");
    return;
  }
  const AdapterSettings untouched;
  const std::pair<const char*, bool> of_a_new_one[] = {
      {"encoder", adapter.encoder != untouched.encoder},
      {"encoder_layers", adapter.encoder_layers != untouched.encoder_layers},
      {"encoder_width", adapter.encoder_width != untouched.encoder_width},
      {"encoder_heads", adapter.encoder_heads != untouched.encoder_heads},
      {"encoder_feed_forward", adapter.encoder_feed_forward != untouched.encoder_feed_forward},
      {"cross_attention_layers", adapter.cross_attention_layers != untouched.cross_attention_layers},
      {"start", adapter.start != untouched.start}};
  for (const auto& [field, is_set] : of_a_new_one) {
    require(!is_set, std::string("adapter.") + field +
                         ": is of a new adapter, and adapter.from names one; leave it out (on the command line "
                         "'adapter={from: " +
                         adapter.from + ", chunk_size: " + std::to_string(adapter.chunk_size) + "}' does)");
  }
}

// Of samples that were prepared beforehand, the folders are what is seen.
void check_corpus_settings(const Recipe& recipe) {
  if (!recipe.data.prepared() || recipe.validation.steps > 0) return;
  const char* why = ": is of data.corpus, which beside prepared samples only validation reads; leave it out";
  require(recipe.data.mixture.empty(), std::string("data.mixture") + why);
  require(recipe.data.held_out == 0, std::string("data.held_out") + why);
}

// What would be passed over silently: a run may take days.
void check_unused(const Recipe& recipe) {
  const DecoderSettings& decoder = recipe.decoder;
  require(decoder.rope_factor == 1 || !decoder.rope_scaling.empty(),
          "decoder.rope_factor: does nothing without decoder.rope_scaling");
  const bool trains_low_rank =
      std::find(recipe.trainable.begin(), recipe.trainable.end(), "low_rank") != recipe.trainable.end();
  require(decoder.low_rank.rank == 0 || trains_low_rank,
          "decoder.low_rank.rank: does nothing unless low_rank is in trainable");
  check_adapter(recipe.adapter, recipe.stage);
  check_corpus_settings(recipe);
}

// Only a shell puts the home folder in its place: a folder named ~ would be made.
void check_paths(const Recipe& recipe) {
  const DataSettings& data = recipe.data;
  const std::pair<const char*, const std::string&> paths[] = {{"output", recipe.output},
                                                              {"decoder.model", recipe.decoder.model},
                                                              {"decoder.config", recipe.decoder.config},
                                                              {"adapter.from", recipe.adapter.from},
                                                              {"adapter.encoder", recipe.adapter.encoder},
                                                              {"data.corpus", data.corpus},
                                                              {"data.samples", data.samples},
                                                              {"data.stored_logits", data.stored_logits},
                                                              {"data.retrieved", data.retrieved}};
  for (const auto& [field, path] : paths)
    require(path != "~" && !path.starts_with("~/"),
            std::string(field) + " '" + path + "': ~ is not read as the home folder here; write the whole path");
}

void check_validation(const Recipe& recipe) {
  const ValidationSettings& validation = recipe.validation;
  if (validation.steps == 0) return;
  const Stage stage = stage_of(recipe.stage);
  const int64_t chunk = recipe.adapter.chunk_size;
  require(validation.decoder_tokens != 1,
          "validation.decoder_tokens: of 1 token nothing is predicted; 0 or at least 2");
  if (stage == Stage::warmup)
    require(validation.decoder_tokens % chunk == 0,
            multiple_of("validation.decoder_tokens", validation.decoder_tokens, chunk) + ", as stage warmup needs");
  if (stage != Stage::cepe && stage != Stage::ceped) return;
  for (const int64_t tokens : validation.context_tokens)
    require(tokens % chunk == 0, multiple_of("validation.context_tokens", tokens, chunk));
}

// What the teacher says must not follow what its student learns.
void check_teacher(const Recipe& recipe) {
  if (stage_of(recipe.stage) != Stage::ceped || !recipe.data.stored_logits.empty()) return;
  for (const std::string& part : recipe.trainable)
    require(part != "decoder" && part != "low_rank",
            "trainable: '" + part +
                "' is part of stage ceped's teacher, which stays as it is; leave it out, or set data.stored_logits");
}

void validate(const Recipe& recipe) {
  require(!recipe.phases.empty(), "phases: at least one is needed");
  require(!recipe.data.corpus.empty() || recipe.data.prepared(),
          "data.corpus: which folder? (cepe data build makes one)");
  require(!recipe.output.empty(), "output: which folder?");
  require(!recipe.trainable.empty(), "trainable: nothing is");
  check_paths(recipe);
  validate_prepared(recipe);
  check_unused(recipe);
  const Stage stage = stage_of(recipe.stage);
  check_loss(recipe.loss, recipe.stage);
  check_optimiser(recipe.optimiser);
  check_teacher(recipe);
  for (size_t i = 0; i < recipe.phases.size(); ++i) {
    const std::string where = "phases." + std::to_string(i) + ": ";
    validate(recipe.phases[i]);
    check_fields(recipe.phases[i], recipe, where);
    if (stage != Stage::mlm && stage != Stage::decoder) check_chunks(recipe.phases[i], recipe, where);
  }
  check_validation(recipe);
}

Recipe read_recipe(const std::string& yaml, const std::string& where, const std::vector<std::string>& overrides) {
  const base::SettingNode root = base::parse_settings(yaml, where, overrides);
  if (root.kind == base::SettingNode::Kind::nothing) {
    throw base::Error(
        base::ErrorCode::invalid_argument,
        where + ": the recipe is empty; begin with one of recipes/, docs/training.md tells what is in it");
  }
  Recipe recipe;
  base::read_settings(root, recipe);
  return recipe;
}

std::string print_recipe(const Recipe& recipe, bool with_help) { return base::print_settings(recipe, with_help); }

}  // namespace cepe::train
