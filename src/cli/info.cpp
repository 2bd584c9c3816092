// cepe info: what a model is and what memory it takes, told from its files without reading its weights.
#include <array>
#include <cstdio>

#include "base/error.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/printable.h"
#include "cli/commands.h"
#include "cli/memory_plan.h"
#include "cli/runtime.h"
#include "cli/standard_streams.h"
#include "model/locate.h"

namespace cepe::cli {
namespace {

using base::Json;

constexpr std::array<int64_t, 5> shown_context_lengths = {0, 8192, 32768, 131072, 1048576};

struct InfoOptions {
  ModelOptions model;
  bool json = false;
};

struct AdapterPart {
  model::EncoderConfig encoder;
  std::vector<int64_t> layers;
  int64_t chunk_size = 256;
  bool trained = true;
  std::string place;  // folder; empty: inside the model's own
};

std::optional<AdapterPart> adapter_part(const model::ModelSource& source, const ModelOptions& options, ModelSize& size,
                                        model::WeightType type, bool on_cpu) {
  if (const auto folder = find_adapter(options)) {
    const model::AdapterConfig config = model::read_adapter_config(*folder);
    add(size, formats::Checkpoint::open(*folder), type, on_cpu);
    return AdapterPart{config.encoder, config.cross_attention_layers, config.chunk_size, config.trained,
                       folder->string()};
  }
  if (!source.encoder || options.adapter == "none") return std::nullopt;
  return AdapterPart{*source.encoder, source.cross_attention_layers, 256, true, ""};
}

Json sizes_json(const model::DecoderConfig& decoder) {
  return {{"layers", decoder.layers},         {"width", decoder.width},
          {"heads", decoder.heads},           {"key_value_heads", decoder.groups},
          {"head_width", decoder.head_width}, {"feed_forward", decoder.feed_forward},
          {"vocabulary", decoder.vocabulary}, {"positions", decoder.max_positions}};
}

Json part_json(const PartSize& part) {
  return {{"parameters", part.parameters}, {"file_bytes", part.stored_bytes}, {"memory_bytes", part.kept_bytes}};
}

Json adapter_json(const AdapterPart& adapter, int64_t width) {
  const model::EncoderConfig& encoder = adapter.encoder;
  return {{"folder", adapter.place.empty() ? Json() : Json(adapter.place)},
          {"trained", adapter.trained},
          {"chunk_size", adapter.chunk_size},
          {"encoder",
           {{"layers", encoder.layers},
            {"width", encoder.shares_embeddings && encoder.width == 0 ? width : encoder.width},
            {"heads", encoder.heads},
            {"feed_forward", encoder.feed_forward},
            {"shares_embeddings", encoder.shares_embeddings}}},
          {"cross_attention_layers", adapter.layers}};
}

// What the tokenizer is; an error's text where the model's own cannot be read, since the rest of the answer stands
// without it.
Json tokenizer_json(const ModelOptions& options, const model::ModelSource& source) {
  try {
    const auto tokenizer = open_tokenizer(options, source);
    const auto named = [&](const std::optional<text::Token>& id) -> Json {
      return id ? Json({{"id", *id}, {"token", tokenizer->token_of(*id)}}) : Json();
    };
    return {{"vocabulary", tokenizer->vocabulary_size()},
            {"bos", named(tokenizer->bos)},
            {"eos", named(tokenizer->eos)},
            {"adds_bos", tokenizer->adds_bos},
            {"chat_template", !tokenizer->chat_template.empty()}};
  } catch (const base::Error& error) {
    if (!options.tokenizer.empty()) throw;
    return {{"error", error.what()}};
  }
}

// Of shards that of the shards: model.safetensors.index.json is read as safetensors.
std::string format_of(const formats::Checkpoint& checkpoint) {
  if (checkpoint.is_gguf()) return "gguf";
  base::Path name = checkpoint.path().filename();
  if (name.string().ends_with(".index.json")) name = name.stem().stem();
  return name.extension().string().substr(1);
}

Json contexts_json(const model::ModelSource& source, const std::optional<AdapterPart>& adapter, int64_t value_bytes,
                   bool kept_in_8_bits) {
  Json list = Json::array();
  for (const int64_t tokens : shown_context_lengths) {
    const ContextMemory memory =
        context_memory(source.decoder, adapter ? adapter->encoder.width : 0,
                       adapter ? static_cast<int64_t>(adapter->layers.size()) : 0, tokens, value_bytes, kept_in_8_bits);
    list.push_back({{"tokens", tokens},
                    {"states_bytes", memory.states},
                    {"kept_keys_values_bytes", memory.kept},
                    {"full_attention_bytes", memory.full_attention}});
  }
  return list;
}

Json info_json(const ModelOptions& options, const CommonOptions& common) {
  const base::Path path = model::locate_model(options.model, common.cache());
  const model::ModelSource source = model::open_model(path);
  const model::WeightType type = weight_type(common.dtype);
  const bool on_cpu = !common.device.starts_with("cuda"), exact = common.dtype == "float32";  // no device is opened
  ModelSize size;
  add(size, source.checkpoint, type, on_cpu, source.encoder && !options.adapter.empty());
  const auto adapter = adapter_part(source, options, size, type, on_cpu);
  Json parts = Json::object();
  for (const auto& [part, bytes] : size.parts) parts[std::string(name_of(part))] = part_json(bytes);
  return {{"model", path.string()},
          {"format", format_of(source.checkpoint)},
          {"family", source.decoder.family},
          {"sizes", sizes_json(source.decoder)},
          {"tied_embeddings", source.decoder.tied},
          {"parts", parts},
          {"total", part_json(size.total)},
          {"weight_types", size.types},
          {"tokenizer", tokenizer_json(options, source)},
          {"adapter", adapter ? adapter_json(*adapter, source.decoder.width) : Json()},
          {"context_memory", contexts_json(source, adapter, exact ? 4 : 2, on_cpu && !exact)}};
}

std::string row(const std::string& first, const std::string& rest) {
  std::string line = first;
  line.resize(std::max<size_t>(22, first.size() + 1), ' ');
  return line + rest + "\n";
}

std::string columns(std::initializer_list<std::string> cells) {
  std::string line;
  for (const std::string& cell : cells) {
    if (cell.size() < 16) line.append(16 - cell.size(), ' ');
    line += cell;
  }
  return line;
}

std::string bytes_of(const Json& object, const char* field) {
  return base::human_bytes(object.at(field).get<int64_t>());
}

std::string parts_text(const Json& info) {
  std::string text = row("", columns({"parameters", "in the file", "in memory"}));
  const auto line = [&](const std::string& name, const Json& part) {
    text += row(name, columns({std::to_string(part.at("parameters").get<int64_t>()), bytes_of(part, "file_bytes"),
                               bytes_of(part, "memory_bytes")}));
  };
  for (const auto& [name, part] : info.at("parts").items()) line(name, part);
  line("total", info.at("total"));
  return text;
}

std::string contexts_text(const Json& info) {
  std::string text = row("context tokens", columns({"states", "+ kept K, V", "full attention"}));
  for (const Json& entry : info.at("context_memory")) {
    text += row(std::to_string(entry.at("tokens").get<int64_t>()),
                columns({bytes_of(entry, "states_bytes"), bytes_of(entry, "kept_keys_values_bytes"),
                         bytes_of(entry, "full_attention_bytes")}));
  }
  return text;
}

std::string tokenizer_text(const Json& tokenizer) {
  if (tokenizer.contains("error")) return "not readable: " + base::printable(tokenizer.at("error").get<std::string>());
  std::string text = std::to_string(tokenizer.at("vocabulary").get<int64_t>()) + " tokens";
  for (const char* name : {"bos", "eos"}) {
    if (!tokenizer.at(name).is_null())
      text += ", " + std::string(name) + " " + base::printable(tokenizer.at(name).at("token").get<std::string>());
  }
  return text + (tokenizer.at("adds_bos") == true ? ", puts bos first" : "");
}

std::string adapter_text(const Json& adapter) {
  if (adapter.is_null()) return "none: documents cannot be read (cepe adapter init makes one)";
  const Json& encoder = adapter.at("encoder");
  const Json& layers = adapter.at("cross_attention_layers");
  return std::string(adapter.at("trained") == true ? "" : "untrained, ") + "encoder " +
         std::to_string(encoder.at("layers").get<int64_t>()) + " x " +
         std::to_string(encoder.at("width").get<int64_t>()) + ", cross-attention in " + std::to_string(layers.size()) +
         " layers, chunks of " + std::to_string(adapter.at("chunk_size").get<int64_t>()) + " tokens";
}

std::string info_text(const Json& info) {
  const Json& sizes = info.at("sizes");
  const auto size = [&](const char* name) { return std::to_string(sizes.at(name).get<int64_t>()); };
  std::string types;
  for (const auto& [name, bytes] : info.at("weight_types").items())
    types += (types.empty() ? "" : ", ") + name + " " + base::human_bytes(bytes.get<int64_t>());
  const Json& tokenizer = info.at("tokenizer");
  const bool chats = tokenizer.contains("chat_template") && tokenizer.at("chat_template") == true;
  std::string text = row("model", base::printable(info.at("model").get<std::string>()));
  text += row("family", info.at("family").get<std::string>() + " (" + info.at("format").get<std::string>() + ")");
  text += row("decoder", size("layers") + " layers, width " + size("width") + ", " + size("heads") + " heads (" +
                             size("key_value_heads") + " of keys and values) of " + size("head_width") +
                             ", feed-forward " + size("feed_forward") + ", vocabulary " + size("vocabulary") + ", " +
                             size("positions") + " positions");
  text += row("weight types", types);
  text += row("tokenizer", tokenizer_text(tokenizer));
  text += row("chat template", chats ? "yes" : "no");
  text += row("adapter", adapter_text(info.at("adapter")));
  return text + "\n" + parts_text(info) + "\n" + contexts_text(info);
}

void info(const InfoOptions& options, const CommonOptions& common) {
  if (!options.model.calibration.empty()) {
    throw base::Error(
        base::ErrorCode::invalid_argument,
        "--calibration " + options.model.calibration +
            ": no weights are read here, so none are rounded; give it to the command that uses the model");
  }
  const Json result = info_json(options.model, common);
  write_output(options.json ? result.dump(1, ' ', false, Json::error_handler_t::replace) + "\n" : info_text(result));
}

}  // namespace

void add_info(CLI::App& program, CommonOptions& common) {
  const auto options = std::make_shared<InfoOptions>();
  CLI::App* command =
      add_command(program, "info", "What a model holds, and the memory it takes at context lengths up to 1M tokens",
                  "cepe info Qwen/Qwen3-0.6B", common, [options, &common] { info(*options, common); });
  CLI::Option* model =
      command->add_option("MODEL", options->model.model, "the same as --model")->check(not_empty())->group("Model");
  add_model_options(*command, options->model);
  model->excludes(command->get_option("--model"));
  command->add_flag("--json", options->json, "one JSON object instead of text");
}

}  // namespace cepe::cli
