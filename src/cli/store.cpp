// cepe store: the encoded chunks kept on disk.
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/parse_values.h"
#include "base/printable.h"
#include "cli/commands.h"
#include "cli/standard_streams.h"
#include "context/disk_tier.h"

namespace cepe::cli {
namespace {

using base::Json;

struct StoreCommand {
  bool json = false;
  std::string cache_size = "8G";
};

std::string words(int64_t chunks, int64_t bytes) {
  return std::to_string(chunks) + " chunks, " + base::human_bytes(bytes);
}

// Nothing where there is no folder: looking makes none.
std::optional<context::DiskTier> open_tier(const CommonOptions& common, int64_t max_bytes) {
  std::error_code problem;  // where it cannot be looked at, opening it says so
  if (!std::filesystem::exists(common.chunks(), problem) && !problem) return std::nullopt;
  context::DiskTierOptions options;
  options.folder = common.chunks();
  options.max_bytes = max_bytes;
  return std::optional<context::DiskTier>(std::in_place, options);
}

std::optional<context::DiskTier> open_tier(const CommonOptions& common) {
  return open_tier(common, context::DiskTierOptions().max_bytes);
}

void print(const StoreCommand& command, const Json& result, const std::string& text) {
  write_output(command.json ? result.dump(1, ' ', false, Json::error_handler_t::replace) + "\n" : text + "\n");
}

void list(const StoreCommand& command, const CommonOptions& common) {
  auto tier = open_tier(common);
  const context::DiskUsage usage = tier ? tier->usage() : context::DiskUsage{};
  Json documents = Json::array(), segments = Json::array();
  std::string text = common.chunks().string() + ": " + words(usage.chunks, usage.bytes) + " in " +
                     std::to_string(usage.segments.size()) + " files of " + base::human_bytes(usage.file_bytes);
  for (const context::StoredDocument& document : usage.documents) {
    documents.push_back({{"source", document.source.empty() ? Json() : Json(document.source)},
                         {"chunks", document.chunks},
                         {"bytes", document.bytes},
                         {"last_use_seconds", document.used / 1'000'000'000}});
    text += "\n  " + (document.source.empty() ? "(conversations and others)" : base::printable(document.source)) +
            ": " + words(document.chunks, document.bytes);
  }
  for (const context::SegmentUse& segment : usage.segments) {
    segments.push_back({{"file", segment.name},
                        {"bytes", segment.bytes},
                        {"chunks", segment.records},
                        {"live_bytes", segment.live_bytes}});
  }
  print(command,
        {{"folder", common.chunks().string()},
         {"chunks", usage.chunks},
         {"bytes", usage.bytes},
         {"file_bytes", usage.file_bytes},
         {"documents", documents},
         {"segments", segments}},
        text);
}

void verify_store(const StoreCommand& command, const CommonOptions& common) {
  auto tier = open_tier(common);
  const auto verified = tier ? tier->verify() : context::DiskTier::Verified{};
  print(command,
        {{"folder", common.chunks().string()},
         {"chunks", verified.records},
         {"bytes", verified.bytes},
         {"damaged", verified.damaged},
         {"unreadable", verified.unreadable}},
        words(verified.records, verified.bytes) + " looked at, " + std::to_string(verified.damaged) + " damaged, " +
            std::to_string(verified.unreadable) + " could not be read");
  if (verified.damaged > 0) {
    throw base::Error(base::ErrorCode::corrupt,
                      common.chunks().string() + ": " + std::to_string(verified.damaged) + " damaged chunks; " +
                          (tier->only_reads() ? "they stay, since it cannot be written"
                                              : "dropped, they are encoded again when needed"));
  }
  if (verified.unreadable > 0) {
    throw base::Error(base::ErrorCode::io,
                      common.chunks().string() + ": " + std::to_string(verified.unreadable) +
                          " chunks could not be read and are kept; mend what is said above, then verify again");
  }
}

void collect(const StoreCommand& command, const CommonOptions& common) {
  auto tier = open_tier(common, base::parse_bytes(command.cache_size, "--cache-size"));
  const auto collected = tier ? tier->collect() : context::DiskTier::Collected{};
  print(command,
        {{"folder", common.chunks().string()},
         {"dropped", collected.dropped_records},
         {"removed_files", collected.removed_files},
         {"freed_bytes", collected.freed_bytes}},
        "dropped " + std::to_string(collected.dropped_records) + " chunks, freed " +
            base::human_bytes(collected.freed_bytes));
}

void clear(const StoreCommand& command, const CommonOptions& common) {
  auto tier = open_tier(common);
  const context::DiskUsage removed = tier ? tier->clear() : context::DiskUsage{};
  print(command, {{"folder", common.chunks().string()}, {"chunks", removed.chunks}, {"bytes", removed.bytes}},
        "removed " + words(removed.chunks, removed.bytes));
}

}  // namespace

void add_store(CLI::App& program, CommonOptions& common) {
  CLI::App* group = add_command_group(program, "store", "The encoded chunks kept on disk", "cepe store ls", common);
  group->require_subcommand(1);
  const auto options = std::make_shared<StoreCommand>();
  const auto add = [&](const char* name, const char* description, const char* example, auto action) {
    CLI::App* command = add_command(*group, name, description, example, common,
                                    [options, &common, action] { action(*options, common); });
    command->add_flag("--json", options->json, "one JSON object instead of text");
    return command;
  };
  add("ls", "The documents they are of, and what they take", "cepe store ls --json", list);
  add("verify", "Read them all; drop those that are damaged (then exit code 2)", "cepe store verify", verify_store);
  add("gc", "Drop what is over the limit, compact the files, remove what nobody needs", "cepe store gc --cache-size 2G",
      collect)
      ->add_option("--cache-size", options->cache_size, "most they may take; the oldest used go first")
      ->capture_default_str();
  add("clear", "Remove them all; they are encoded again when needed", "cepe store clear", clear);
}

}  // namespace cepe::cli
