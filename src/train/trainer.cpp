#include "train/trainer.h"

#include <ATen/Context.h>
#include <ATen/SDPBackend.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/append_file.h"
#include "train/batch_source.h"
#include "train/checkpoint.h"
#include "train/data_identity.h"
#include "train/flops.h"
#include "train/memory_check.h"
#include "train/objective.h"
#include "train/replicas.h"
#include "train/run_log.h"
#include "train/same_run.h"
#include "train/schedule.h"
#include "train/trainee.h"
#include "train/validation.h"

namespace cepe::train {
namespace {

using base::Error;
using base::ErrorCode;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::optional<data::TokenCorpus> open_corpus(const Recipe& recipe, const TrainOptions& options) {
  if (recipe.data.corpus.empty()) return std::nullopt;
  data::TokenCorpus corpus = data::TokenCorpus::open(recipe.data.corpus);
  if (!options.allow_mismatch && !options.export_only) check_tokenizer(corpus, recipe, options.cache);
  return corpus;
}

std::optional<data::Sampler> held_out_of(const Recipe& recipe, const std::optional<data::TokenCorpus>& corpus) {
  if (recipe.validation.steps == 0) return std::nullopt;
  const auto split = recipe.data.held_out > 0 ? data::Split::held_out : data::Split::training;
  const int64_t tokens = validation_tokens(recipe);
  return sampler_for(*corpus, recipe, tokens, 1 << 20, split,
                     "validation (context_tokens and decoder_tokens: " + std::to_string(tokens) + ")");
}

// What the device's arithmetic must be for the recipe.
void prepare_device(const Recipe& recipe, c10::Device device) {
  if (!device.is_cuda()) return;
  if (recipe.deterministic) {
    // Strictly: with warnings alone the flash kernel's backward pass adds up in any order. LibTorch then also wants
    // cuBLAS's workspaces fixed, and would fill every new tensor to show what is read before it is written.
    ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
    at::globalContext().setDeterministicAlgorithms(true, false);
    at::globalContext().setDeterministicFillUninitializedMemory(false);
    at::globalContext().setSDPUseCuDNN(false);
    return;
  }
  // At a head width of 64 cuDNN's attention is 1.3 to 1.6 times as fast as the flash kernel on a Hopper GPU.
  using at::SDPBackend;
  std::vector<int64_t> order;
  for (const SDPBackend backend :
       {SDPBackend::cudnn_attention, SDPBackend::flash_attention, SDPBackend::efficient_attention, SDPBackend::math})
    order.push_back(static_cast<int64_t>(backend));
  at::globalContext().setSDPPriorityOrder(order);
}

// Micro-batches are dealt out in turn, so each replica has equally many.
void check_shares(const Recipe& recipe, size_t replicas) {
  for (size_t i = 0; i < recipe.phases.size(); ++i) {
    const int64_t parts = micro_batches(recipe.phases[i]), count = static_cast<int64_t>(replicas);
    if (parts % count == 0) continue;
    throw Error(ErrorCode::invalid_argument, "phases." + std::to_string(i) + ": the " + std::to_string(parts) +
                                                 " micro-batches of a step cannot be " + "shared equally by " +
                                                 std::to_string(count) + " replicas; set phases." + std::to_string(i) +
                                                 ".micro_batch, so that batch / micro_batch is a multiple of " +
                                                 std::to_string(count));
  }
}

// An export may run beside the run itself.
CheckpointFolder checkpoints_of(const Recipe& recipe, const TrainOptions& options) {
  const base::Path folder = base::Path(recipe.output) / "checkpoints";
  return options.export_only ? CheckpointFolder::to_read(folder) : CheckpointFolder(folder, recipe.checkpoint.keep);
}

void check_is_no_file(const std::string& output) {
  std::error_code none;
  if (!std::filesystem::exists(output, none) || std::filesystem::is_directory(output, none)) return;
  throw Error(ErrorCode::invalid_argument, "output: " + output + " is a file; expected a folder");
}

// Two runs in one folder would take each other's half-written checkpoints for leftovers.
std::unique_ptr<data::FolderLock> lock_of(const Recipe& recipe, const TrainOptions& options) {
  if (options.export_only) return nullptr;  // beside a run that goes on
  std::filesystem::create_directories(recipe.output);
  return std::make_unique<data::FolderLock>(recipe.output);
}

class Trainer {
 public:
  Trainer(const Recipe& recipe, const TrainOptions& options)
      : recipe_(recipe),
        options_(options),
        corpus_(open_corpus(recipe, options)),
        replicas_(recipe, vocabulary(), options.cache, options.devices),
        identity_(identity_of_run(recipe, identity_of_data(recipe, corpus_), *replicas_.first().trainee)),
        sources_(batch_sources(recipe, corpus_, *replicas_.first().trainee)),
        held_out_(held_out_of(recipe, corpus_)),
        lock_(lock_of(recipe, options)),
        checkpoints_(checkpoints_of(recipe, options)) {}

  TrainResult run() {
    restore();
    if (options_.export_only) return export_newest();
    if (!checkpoints_.newest()) check_is_free(recipe_);
    if (const Replica& replica = replicas_.first(); replica.device.is_cpu())
      check_micro_batch_memory(*replica.trainee, recipe_, base::available_bytes());
    RunLog log(recipe_, step_, count(optimiser().parameters()), {options_.devices.size(), options_.device_memory});
    try {
      return go_on(log);
    } catch (const base::Interrupted&) {
      // In the midst of a step nothing has changed yet: it is made anew when the run goes on, and so is a validation.
      if (step_ > 0 && checkpoints_.newest() != step_) save();
      if (step_ > 0) tell_where_it_stopped();
      throw;
    }
  }

 private:
  int64_t vocabulary() const { return corpus_ ? corpus_->vocabulary() : 0; }
  Optimiser& optimiser() { return replicas_.first().optimiser; }

  // All steps that are left, and the result. Errors: Interrupted at Ctrl-C; what was done may not be saved yet.
  TrainResult go_on(RunLog& log) {
    const auto start = Clock::now();
    auto last_saved = start;
    double loss = 0;
    if (owes_validation_) {
      validate_now(log);
      save();
    }
    while (step_ < recipe_.steps()) {
      loss = one_step(log);
      owes_validation_ =
          recipe_.validation.steps > 0 && (step_ % recipe_.validation.steps == 0 || step_ == recipe_.steps());
      if (owes_validation_) validate_now(log);
      base::throw_if_interrupted();
      const bool out_of_time = options_.stop_after_seconds > 0 && seconds_since(start) >= options_.stop_after_seconds;
      const bool stops = out_of_time && step_ < recipe_.steps();
      const CheckpointSettings& when = recipe_.checkpoint;
      if (stops || (when.steps > 0 && step_ % when.steps == 0) ||
          (when.minutes > 0 && seconds_since(last_saved) >= 60 * when.minutes)) {
        save();
        last_saved = Clock::now();
      }
      if (stops) {
        tell_where_it_stopped();
        return {step_, false, loss};
      }
    }
    if (checkpoints_.newest() != step_) save();
    write_result();
    return {step_, true, loss};
  }

  // Once the checkpoint of this step is on the disk.
  void tell_where_it_stopped() const {
    base::notice("stopped after step " + std::to_string(step_) + "; the same command goes on from there");
  }

  void write_result() {
    export_trained(base::Path(recipe_.output) / "result", *replicas_.first().trainee,
                   [&](const at::Tensor& leaf) { return optimiser().weight_behind(leaf); });
  }

  TrainResult export_newest() {
    if (step_ == 0) throw Error(ErrorCode::not_found, recipe_.output + ": there is no checkpoint yet to export");
    write_result();
    return {step_, true, 0};
  }

  // Where in the recipe a step is.
  struct Place {
    size_t phase = 0;
    int64_t step = 0;  // of the phase
  };
  Place place_of(int64_t step) const {
    size_t phase = 0;
    while (phase + 1 < recipe_.phases.size() && step >= recipe_.phases[phase].steps)
      step -= recipe_.phases[phase++].steps;
    return {phase, step};
  }

  // What the micro-batches of one replica come to.
  struct Sums {
    at::Tensor total, cross_entropy, divergence;
    double weight = 0, flops = 0;
    int64_t tokens = 0;
  };

  // The micro-batches rank, rank + replicas, ... of a step: their gradients are left in the replica's sums.
  Sums work_of(size_t rank, const Place& place) {
    const PhaseSettings& phase = recipe_.phases[place.phase];
    const int64_t parts = micro_batches(phase), micro = phase.batch / parts;
    const BatchRequest request = {.stage = stage_of(recipe_.stage),
                                  .phase = phase,
                                  .chunk_size = recipe_.adapter.chunk_size,
                                  .seed = recipe_.seed_of_data() + place.phase,
                                  .mask = recipe_.loss.mask,
                                  .mask_token = static_cast<text::Token>(vocabulary()),
                                  .vocabulary = vocabulary_of(*replicas_[rank].trainee)};
    Replica& replica = replicas_[rank];
    Sums sums;
    for (auto part = static_cast<int64_t>(rank); part < parts; part += static_cast<int64_t>(replicas_.size())) {
      base::throw_if_interrupted();
      const auto first = static_cast<uint64_t>(place.step * phase.batch + part * micro);
      const Batch batch = sources_[place.phase](request, first, micro, replica.device);
      const Loss loss = objective(*replica.trainee, batch, recipe_);
      // Without a context nothing of the adapter takes part, and there is nothing to learn.
      if (loss.total.requires_grad()) torch::autograd::backward({loss.total}, {});
      const double weight = batch.weight();
      replica.optimiser.accumulate(weight);
      sums.weight += weight;
      sums.flops += training_flops(*replica.trainee, batch);
      sums.tokens += micro * phase.windows * phase.decoder_tokens;
      const auto add = [weight](at::Tensor& sum, const at::Tensor& value) {
        if (!value.defined()) return;
        const at::Tensor weighted = value.detach() * weight;
        sum = sum.defined() ? sum + weighted : weighted;
      };
      add(sums.total, loss.total);
      add(sums.cross_entropy, loss.cross_entropy);
      add(sums.divergence, loss.divergence);
    }
    return sums;
  }

  double one_step(RunLog& log) {
    const auto start = Clock::now();
    const Place place = place_of(step_);
    std::vector<Sums> sums(replicas_.size());
    replicas_.run([&](size_t rank) { sums[rank] = work_of(rank, place); });

    double weight = 0;
    for (const Sums& one : sums) weight += one.weight;
    weight = std::max(weight, 1.0);  // where no token is masked, every sum is zero
    StepReport report;
    report.rate_share = rate_at(recipe_.schedule, step_, recipe_.steps());
    report.gradient_norm = replicas_.step(report.rate_share, 1 / weight);
    const auto mean = [&](at::Tensor Sums::*value) {
      double total = 0;
      for (const Sums& one : sums) total += (one.*value).item<double>();
      return total / weight;
    };
    for (const Sums& one : sums) report.flops += one.flops, report.tokens += one.tokens;
    report.loss = mean(&Sums::total);
    report.cross_entropy = mean(&Sums::cross_entropy);
    if (sums.front().divergence.defined()) report.divergence = mean(&Sums::divergence);
    guard(report);
    report.seconds = seconds_since(start);
    log.stepped(++step_, report);
    tokens_seen_ += report.tokens;
    return report.loss;
  }

  void validate_now(RunLog& log) {
    const Replica& replica = replicas_.first();
    const c10::DeviceGuard guard(replica.device);
    log.validated(step_, validate_on(*replica.trainee, *held_out_, recipe_, vocabulary(), replica.device));
    owes_validation_ = false;
  }

  // A step whose gradients are not finite changes nothing; too many of them in a row end the run.
  void guard(const StepReport& report) {
    constexpr int most = 10;
    not_finite_ = std::isfinite(report.gradient_norm) && std::isfinite(report.loss) ? 0 : not_finite_ + 1;
    if (not_finite_ == 0) return;
    base::warn("step " + std::to_string(step_ + 1) + ": the gradients are not finite; the step is left out");
    if (not_finite_ < most) return;
    const std::optional<int64_t> saved = checkpoints_.newest();
    throw Error(ErrorCode::internal, std::to_string(most) +
                                         " steps in a row had gradients that are not finite; the last checkpoint is " +
                                         (saved ? "that of step " + std::to_string(*saved) : std::string("none")) +
                                         ". A lower optimiser.rate may help");
  }

  void save() {
    CheckpointState state;
    optimiser().visit([&](const std::string& name, at::Tensor& tensor) { state.tensors.emplace_back(name, tensor); });
    state.state = {{"step", step_},
                   {"optimiser_steps", optimiser().steps()},
                   {"tokens", tokens_seen_},
                   {"owes_validation", owes_validation_},
                   {"recipe", identity_.recipe},
                   {"data", identity_.data},
                   {"decoder", identity_.decoder}};
    checkpoints_.save(step_, state);
    base::detail("checkpoint of step " + std::to_string(step_));
  }

  void restore() {
    const auto found = checkpoints_.load_newest();
    if (!found) return;
    const base::Json& state = found->second.state;
    check_same_run(state, identity_, recipe_, options_);
    size_t next = 0;
    optimiser().visit([&](const std::string& name, at::Tensor& tensor) {
      if (next >= found->second.tensors.size() || found->second.tensors[next].first != name)
        throw Error(ErrorCode::corrupt, recipe_.output + ": the checkpoint has no tensor '" + name + "'");
      tensor.copy_(found->second.tensors[next++].second);
    });
    step_ = state.at("step").get<int64_t>();
    tokens_seen_ = state.at("tokens").get<int64_t>();
    owes_validation_ = recipe_.validation.steps > 0 && state.value("owes_validation", false);
    replicas_.restored(state.value("optimiser_steps", step_));  // older checkpoints lack it
    base::notice("going on after step " + std::to_string(step_) + " of " + std::to_string(recipe_.steps()));
  }

  const Recipe& recipe_;
  const TrainOptions& options_;
  std::optional<data::TokenCorpus> corpus_;  // none where all samples are prepared
  Replicas replicas_;
  RunIdentity identity_;
  std::vector<BatchSource> sources_;        // by phase
  std::optional<data::Sampler> held_out_;   // where there is validation
  std::unique_ptr<data::FolderLock> lock_;  // before the checkpoints: their folder is tidied when it is opened
  CheckpointFolder checkpoints_;
  int64_t step_ = 0;
  int64_t tokens_seen_ = 0;
  bool owes_validation_ = false;  // of the last step: it was interrupted
  int not_finite_ = 0;
};

}  // namespace

TrainResult train(const Recipe& recipe, const TrainOptions& options) {
  validate(recipe);
  check_shares(recipe, options.devices.size());
  check_is_no_file(recipe.output);
  prepare_device(recipe, options.devices.front());
  Trainer trainer(recipe, options);
  return trainer.run();
}

}  // namespace cepe::train
