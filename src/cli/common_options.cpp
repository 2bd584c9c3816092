#include "cli/common_options.h"

#include <ATen/Parallel.h>

#include <charconv>
#include <limits>

#include "base/error.h"
#include "base/log.h"
#include "base/parse_values.h"
#include "cli/version.h"
#include "engine/open.h"
#include "ops/device.h"

namespace cepe::cli {
namespace {

// Of commands that open no device too.
void check_device(const std::string& name) {
  try {
    ops::check_device_name(name);
  } catch (const base::Error& error) {
    throw base::Error(error.code(), "--device " + name + ": " + error.what() + "; use --device cpu");
  }
}

}  // namespace

base::Path CommonOptions::cache() const {
  return cache_folder.empty() ? base::default_cache_folder() : base::Path(cache_folder);
}

base::Path CommonOptions::chunks() const { return engine::chunks_folder(cache()); }
base::Path CommonOptions::kept() const { return engine::kept_folder(cache()); }

void add_common_options(CLI::App& command, CommonOptions& common) {
  const char* group = "Everywhere";
  command.add_option("--device", common.device, "cpu, cuda, cuda:N, or auto: a GPU where there is one")
      ->capture_default_str()
      ->group(group);
  command
      .add_option(
          "--dtype", common.dtype,
          "how weights are kept: auto (packed blocks stay packed), float32, bfloat16; fp8, int8, int4: those of "
          "decoder and cross-attention in so many bits")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "fp8", "int8", "int4"}))
      ->capture_default_str()
      ->group(group);
  command.add_option("--threads", common.threads, "threads of the processor; 0: all")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str()
      ->group(group);
  command.add_option("--cache-dir", common.cache_folder, "models and encoded chunks [$CEPE_CACHE_DIR, ~/.cache/cepe]")
      ->check(not_empty())
      ->group(group);
  command.add_flag("-q,--quiet", common.quiet, "warnings and errors only")->group(group);
  command.add_flag("-v,--verbose", common.verbose, "say more")->group(group);
  command.set_help_flag("-h,--help", "this text")->group(group);
  command.set_version_flag("--version", program_version(), "the program's version")->group(group);
}

CLI::App* add_command_group(CLI::App& parent, const std::string& name, const std::string& description,
                            const std::string& example, CommonOptions& common) {
  CLI::App* command = parent.add_subcommand(name, description);
  add_common_options(*command, common);
  command->footer("Example:\n  " + example);
  return command;
}

CLI::App* add_command(CLI::App& parent, const std::string& name, const std::string& description,
                      const std::string& example, CommonOptions& common, const std::function<void()>& body) {
  CLI::App* command = add_command_group(parent, name, description, example, common);
  // final_callback, not parse_complete: a mistake further right on the line must stop it.
  command->final_callback([&common, body] {
    apply(common);
    body();
  });
  return command;
}

void apply(const CommonOptions& common) {
  if (common.quiet && common.verbose)
    throw base::Error(base::ErrorCode::invalid_argument, "--quiet and --verbose contradict each other");
  check_device(common.device);
  if (common.quiet) base::set_log_level(base::LogLevel::warning);
  if (common.verbose) base::set_log_level(base::LogLevel::detail);
  // Both may be set once only in a process, before the first parallel work.
  at::set_num_interop_threads(1);
  if (common.threads > 0) at::set_num_threads(common.threads);
}

CLI::Validator not_empty() {
  const auto refusal = [](const std::string& text) {
    return text.empty() ? "'' is no name (of a shell variable that is not set?)" : std::string();
  };
  return CLI::Validator(refusal, "");
}

CLI::Validator not_negative() { return CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max()); }

CLI::Validator seed_range() {
  const auto refusal = [](const std::string& text) {
    uint64_t seed = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), seed);
    const bool whole = problem == std::errc() && end == text.data() + text.size();
    return whole ? std::string() : "'" + text + "' is not a whole number from 0 to 18446744073709551615";
  };
  return CLI::Validator(refusal, "");
}

CLI::Validator token_count() {
  const auto replace = [](std::string& text) {
    try {
      const std::vector<int64_t> counts = base::parse_counts(text, "");
      if (counts.size() != 1) return "'" + text + "': expected one number of tokens such as 2048 or 2K";
      text = std::to_string(counts.front());
      return std::string();
    } catch (const base::Error&) {
      return "'" + text + "': expected a number of tokens such as 2048 or 2K";
    }
  };
  return CLI::Validator(replace, "");
}

}  // namespace cepe::cli
