#include "train/run_log.h"

#include <cmath>
#include <cstdio>

#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"

namespace cepe::train {
namespace {

std::string text(const char* format, double value) {
  std::array<char, 64> buffer = {};
  std::snprintf(buffer.data(), buffer.size(), format, value);
  return buffer.data();
}

std::string duration(double seconds) {
  const auto whole = static_cast<int64_t>(seconds);
  if (whole < 120) return std::to_string(whole) + " s";
  if (whole < 7200) return std::to_string(whole / 60) + " min";
  return std::to_string(whole / 3600) + " h " + std::to_string(whole / 60 % 60) + " min";
}

}  // namespace

RunLog::RunLog(const Recipe& recipe, int64_t step, int64_t trained_weights, Hardware hardware)
    : recipe_(recipe),
      metrics_(base::Path(recipe.output) / "metrics.jsonl", step),
      events_(recipe.output, step > 0 ? std::optional(step) : std::nullopt),
      hardware_(std::move(hardware)),
      first_step_(step),
      start_(std::chrono::steady_clock::now()) {
  base::replace_file(base::Path(recipe.output) / "recipe.yaml", print_recipe(recipe, false));
  base::notice("stage " + recipe.stage + ": " + std::to_string(trained_weights) + " weights are trained, " +
               std::to_string(recipe.steps()) + " steps");
}

void RunLog::stepped(int64_t step, const StepReport& report) {
  since_.push_back(report);
  if (step % recipe_.log_steps == 0 || step == first_step_ + 1 || step == recipe_.steps()) write(step);
}

void RunLog::write(int64_t step) {
  StepReport sum;
  double divergence = 0;
  for (const StepReport& one : since_) {
    sum.loss += one.loss, sum.cross_entropy += one.cross_entropy, sum.seconds += one.seconds;
    sum.flops += one.flops, sum.tokens += one.tokens;
    divergence += one.divergence.value_or(0);
  }
  const auto count = static_cast<double>(since_.size());
  const StepReport& last = since_.back();
  const double tokens_a_second = static_cast<double>(sum.tokens) / sum.seconds,
               tflops = sum.flops / sum.seconds * 1e-12;
  const double share =
      recipe_.peak_tflops > 0 ? tflops / recipe_.peak_tflops / static_cast<double>(hardware_.devices) : 0;
  const int64_t memory = hardware_.device_memory ? hardware_.device_memory() : base::peak_resident_bytes();
  const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const double left = elapsed / static_cast<double>(step - first_step_) * static_cast<double>(recipe_.steps() - step);

  base::OrderedJson values = {{"loss", sum.loss / count},
                              {"cross_entropy", sum.cross_entropy / count},
                              {"rate", recipe_.optimiser.rate * last.rate_share},
                              {"gradient_norm", last.gradient_norm},
                              {"tokens_per_second", tokens_a_second},
                              {"tflops", tflops},
                              {"peak_memory_bytes", memory}};
  if (last.divergence) values["divergence"] = divergence / count;
  if (share > 0) values["mfu"] = share;
  for (const auto& [name, value] : values.items()) events_.scalar("train/" + name, step, value.get<double>());
  metrics_.write(step, values);
  base::notice("step " + std::to_string(step) + "/" + std::to_string(recipe_.steps()) + "  loss " +
               text("%.4f", sum.loss / count) + "  rate " + text("%.2e", recipe_.optimiser.rate * last.rate_share) +
               "  " + text("%.0f", tokens_a_second) + " tokens/s  " + text("%.1f", tflops) + " TFLOP/s" +
               (share > 0 ? " (MFU " + text("%.0f", 100 * share) + " %)" : std::string()) + "  " +
               base::human_bytes(memory) + "  " + duration(left) + " left");
  since_.clear();
  events_.flush();
}

void RunLog::validated(int64_t step, const std::vector<ValidationResult>& results) {
  std::string line = "step " + std::to_string(step) + "  held out: perplexity";
  base::OrderedJson by_length = base::OrderedJson::object();
  for (const ValidationResult& result : results) {
    line += " " + text("%.3f", std::exp(result.nll)) + " (" + std::to_string(result.context_tokens) + ")";
    by_length[std::to_string(result.context_tokens)] = result.nll;
    events_.scalar("held_out/nll_" + std::to_string(result.context_tokens), step, result.nll);
  }
  metrics_.write(step, {{"held_out_nll", by_length}});
  events_.flush();
  base::notice(line + " by tokens of context");
}

}  // namespace cepe::train
