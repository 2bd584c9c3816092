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
  std::string cache_size = "8G", kept_disk = "4G";
};

std::string words(int64_t chunks, int64_t bytes) {
  return std::to_string(chunks) + " chunks, " + base::human_bytes(bytes);
}

// Nothing where there is no folder: looking makes none.
std::optional<context::DiskTier> open_tier(const base::Path& folder,
                                           int64_t max_bytes = context::DiskTierOptions().max_bytes) {
  if (!base::may_be_there(folder)) {
    const base::Path cache = folder.parent_path();
    if (std::error_code none; std::filesystem::is_regular_file(cache, none))
      throw base::Error(base::ErrorCode::invalid_argument,
                        cache.string() + ": this is a file; expected a cache folder");
    return std::nullopt;
  }
  context::DiskTierOptions options;
  options.folder = folder;
  options.max_bytes = max_bytes;
  return std::optional<context::DiskTier>(std::in_place, options);
}

void print(const StoreCommand& command, const Json& result, const std::string& text) {
  write_output(command.json ? result.dump(1, ' ', false, Json::error_handler_t::replace) + "\n" : text + "\n");
}

// What was found or done: of the chunks, and of their K and V ("kept").
struct Told {
  Json json;
  std::string text;
};
void print(const StoreCommand& command, Told chunks, Told kept, bool tells_kept) {
  chunks.json["kept"] = std::move(kept.json);
  print(command, chunks.json, chunks.text + (tells_kept ? "\nK and V: " + kept.text : ""));
}

Told usage_of(const base::Path& folder, const context::DiskUsage& usage) {
  Json segments = Json::array();
  for (const context::SegmentUse& segment : usage.segments) {
    segments.push_back({{"file", segment.name},
                        {"bytes", segment.bytes},
                        {"chunks", segment.records},
                        {"live_bytes", segment.live_bytes}});
  }
  return {{{"folder", folder.string()},
           {"chunks", usage.chunks},
           {"bytes", usage.bytes},
           {"file_bytes", usage.file_bytes},
           {"segments", segments}},
          folder.string() + ": " + words(usage.chunks, usage.bytes) + " in " + std::to_string(usage.segments.size()) +
              " files of " + base::human_bytes(usage.file_bytes)};
}

void list(const StoreCommand& command, const CommonOptions& common) {
  const auto usage = [](std::optional<context::DiskTier> tier) { return tier ? tier->usage() : context::DiskUsage{}; };
  const context::DiskUsage chunks = usage(open_tier(common.chunks())), kept = usage(open_tier(common.kept()));
  Told told = usage_of(common.chunks(), chunks);
  told.json["documents"] = Json::array();
  for (const context::StoredDocument& document : chunks.documents) {
    told.json["documents"].push_back({{"source", document.source.empty() ? Json() : Json(document.source)},
                                      {"chunks", document.chunks},
                                      {"bytes", document.bytes},
                                      {"last_use_seconds", document.used / 1'000'000'000}});
    told.text += "\n  " + (document.source.empty() ? "(conversations and others)" : base::printable(document.source)) +
                 ": " + words(document.chunks, document.bytes);
  }
  print(command, std::move(told), usage_of(common.kept(), kept), kept.chunks > 0);
}

// Of one folder; where something is wrong with it, `error` says so afterwards.
Told verify(const base::Path& folder, std::optional<base::Error>& error) {
  auto tier = open_tier(folder);
  const auto verified = tier ? tier->verify() : context::DiskTier::Verified{};
  if (verified.damaged > 0) {
    error.emplace(base::ErrorCode::corrupt, folder.string() + ": " + std::to_string(verified.damaged) +
                                                " damaged chunks; " +
                                                (tier->only_reads() ? "they stay, since it cannot be written"
                                                                    : "dropped, they are encoded again when needed"));
  } else if (verified.unreadable > 0 && !error) {
    error.emplace(base::ErrorCode::io,
                  folder.string() + ": " + std::to_string(verified.unreadable) +
                      " chunks could not be read and are kept; mend what is said above, then verify again");
  }
  return {{{"folder", folder.string()},
           {"chunks", verified.records},
           {"bytes", verified.bytes},
           {"damaged", verified.damaged},
           {"unreadable", verified.unreadable}},
          words(verified.records, verified.bytes) + " looked at, " + std::to_string(verified.damaged) + " damaged, " +
              std::to_string(verified.unreadable) + " could not be read"};
}

void verify_store(const StoreCommand& command, const CommonOptions& common) {
  std::optional<base::Error> error;
  Told chunks = verify(common.chunks(), error), kept = verify(common.kept(), error);
  const bool tells_kept = kept.json.at("chunks") != 0 || kept.json.at("damaged") != 0;
  print(command, std::move(chunks), std::move(kept), tells_kept);
  if (error) throw base::Error(*error);
}

void collect(const StoreCommand& command, const CommonOptions& common) {
  const auto collect_in = [](const base::Path& folder, int64_t max_bytes) -> Told {
    auto tier = open_tier(folder, max_bytes);
    const auto collected = tier ? tier->collect() : context::DiskTier::Collected{};
    return {{{"folder", folder.string()},
             {"dropped", collected.dropped_records},
             {"removed_files", collected.removed_files},
             {"freed_bytes", collected.freed_bytes}},
            "dropped " + std::to_string(collected.dropped_records) + " chunks, freed " +
                base::human_bytes(collected.freed_bytes)};
  };
  const int64_t most = base::parse_bytes(command.cache_size, "--cache-size");
  const int64_t most_kept = base::parse_bytes(command.kept_disk, "--kept-disk");
  Told kept = collect_in(common.kept(), most_kept);  // first: it makes room for the other
  const bool tells_kept = kept.json.at("removed_files") != 0;
  print(command, collect_in(common.chunks(), most), std::move(kept), tells_kept);
}

void clear(const StoreCommand& command, const CommonOptions& common) {
  const auto clear_in = [](const base::Path& folder) -> Told {
    auto tier = open_tier(folder);
    const context::DiskUsage removed = tier ? tier->clear() : context::DiskUsage{};
    return {{{"folder", folder.string()}, {"chunks", removed.chunks}, {"bytes", removed.bytes}},
            "removed " + words(removed.chunks, removed.bytes)};
  };
  Told kept = clear_in(common.kept());
  const bool tells_kept = kept.json.at("chunks") != 0;
  print(command, clear_in(common.chunks()), std::move(kept), tells_kept);
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
  CLI::App* gc = add("gc", "Drop what is over the limits, compact the files, remove what nobody needs",
                     "cepe store gc --cache-size 2G", collect);
  gc->add_option("--cache-size", options->cache_size, "most they may take; the oldest used go first")
      ->capture_default_str();
  gc->add_option("--kept-disk", options->kept_disk, "likewise their K and V")->capture_default_str();
  add("clear", "Remove them all, and their K and V; they are made again when needed", "cepe store clear", clear);
}

}  // namespace cepe::cli
