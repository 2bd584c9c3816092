// cepe store: the encoded chunks kept on disk.
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/standard_streams.h"
#include "context/context_store.h"

namespace cepe::cli {
namespace {

using base::Json;

std::string words(const context::StoreUsage& usage) {
  return std::to_string(usage.chunks) + " chunks, " + base::human_bytes(usage.bytes);
}

void list(bool json, const CommonOptions& common) {
  const context::StoreUsage usage = context::store_usage(common.chunks());
  const Json result = {{"folder", common.chunks().string()}, {"chunks", usage.chunks}, {"bytes", usage.bytes}};
  write_output(json ? result.dump(1) + "\n" : common.chunks().string() + ": " + words(usage) + "\n");
}

void clear(bool json, const CommonOptions& common) {
  const context::StoreUsage removed = context::clear_store(common.chunks());
  const Json result = {{"folder", common.chunks().string()}, {"chunks", removed.chunks}, {"bytes", removed.bytes}};
  write_output(json ? result.dump(1) + "\n" : "removed " + words(removed) + "\n");
}

}  // namespace

void add_store(CLI::App& program, CommonOptions& common) {
  CLI::App* group = add_command_group(program, "store", "The encoded chunks kept on disk", "cepe store ls", common);
  group->require_subcommand(1);
  const auto json = std::make_shared<bool>(false);
  CLI::App* ls = add_command(*group, "ls", "How many there are and what they take", "cepe store ls --json", common,
                             [json, &common] { list(*json, common); });
  ls->add_flag("--json", *json, "one JSON object instead of text");
  CLI::App* remove = add_command(*group, "clear", "Remove them all; they are encoded again when needed",
                                 "cepe store clear", common, [json, &common] { clear(*json, common); });
  remove->add_flag("--json", *json, "one JSON object instead of text");
}

}  // namespace cepe::cli
