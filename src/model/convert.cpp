#include "model/convert.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "model/adapter.h"
#include "model/convert_gguf.h"
#include "model/decoder_identity.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Path;
using formats::NamedTensor;

constexpr int64_t converted_shard_bytes = int64_t{4} << 30;

// Fields of a published config.json that say nothing of the decoder.
constexpr std::array published_fields = {
    "architectures",         "do_cross_attention", "num_cross_attn_layers", "num_cross_attn_hidden_states",
    "encoder_is_model",      "train_encoder",      "encoder_hidden_size",   "encode_mode",
    "train_batch_mode",      "kl_loss_cof",        "kl_loss_mode",          "lm_loss_cof",
    "offload_hidden_states", "is_decoder",         "encoder_config"};

bool belongs_to_adapter(const std::string& name) {
  return name.starts_with("encoder.") || name.find(".cross_attn.") != std::string::npos;
}

void write_converted_config(const Path& folder, const Json& config) {
  base::replace_file(folder / "config.json", config.dump(1) + "\n");
}

std::vector<NamedTensor> all_tensors(const formats::Checkpoint& checkpoint) {
  std::vector<NamedTensor> tensors;
  tensors.reserve(checkpoint.names().size());
  for (const std::string& name : checkpoint.names()) tensors.push_back({name, checkpoint.at(name)});
  return tensors;
}

Json metadata_of(const formats::Checkpoint& checkpoint) {
  if (checkpoint.is_gguf() || !checkpoint.metadata().is_object()) return {{"format", "pt"}};
  return checkpoint.metadata();
}

Json read_json(const Path& path) { return base::parse_json(base::read_file(path, size_t{64} << 20), path.string()); }

std::string name_of(const Path& path) { return (path.has_filename() ? path : path.parent_path()).filename().string(); }

void check_joinable(const ModelSource& decoder, const AdapterConfig& adapter, const formats::Checkpoint& weights,
                    const Path& folder) {
  if (decoder.checkpoint.is_gguf() || decoder.decoder.family != "llama") {
    throw Error(ErrorCode::unsupported, decoder.path.string() +
                                            ": published CEPE folders hold Llama decoders in safetensors; convert a "
                                            "GGUF file first (cepe convert FILE --output FOLDER)");
  }
  const auto count = static_cast<int64_t>(adapter.cross_attention_layers.size());
  if (count == 0 || adapter.cross_attention_layers.front() != decoder.decoder.layers - count ||
      adapter.cross_attention_layers.back() != decoder.decoder.layers - 1) {
    throw Error(ErrorCode::unsupported, folder.string() +
                                            ": published CEPE folders have cross-attention in the last layers; this "
                                            "adapter has it elsewhere");
  }
  for (const std::string& name : weights.names()) {
    if (name.ends_with("_scale"))
      throw Error(ErrorCode::unsupported,
                  folder.string() + ": published CEPE folders have no 8-bit rows ('" + name + "')");
  }
}

// What joining puts beside the decoder's fields.
Json published_part(const Json& adapter, const AdapterConfig& config, const DecoderConfig& decoder) {
  Json fields =
      base::json_has(adapter, "published")
          ? adapter.at("published")
          : Json({{"architectures", {"LlamaForCausalContextLM"}}, {"encoder_hidden_size", config.encoder.width}});
  fields["do_cross_attention"] = true;
  fields["num_cross_attn_layers"] = config.cross_attention_layers.size();
  fields["encoder_config"] = adapter.at("encoder");
  if (config.encoder.shares_embeddings) {
    fields["encoder_config"].erase("embeddings");
    fields["encoder_config"]["vocab_size"] = decoder.vocabulary;
  }
  return fields;
}

}  // namespace

void split_cepe_folder(const ModelSource& source, const Path& decoder_folder, const Path& adapter_folder) {
  if (!source.encoder) {
    throw Error(ErrorCode::invalid_argument,
                source.path.string() + ": no published CEPE folder (config.json has no 'encoder_config')");
  }
  std::vector<NamedTensor> decoder, adapter;
  for (const NamedTensor& tensor : all_tensors(source.checkpoint))
    (belongs_to_adapter(tensor.name) ? adapter : decoder).push_back(tensor);

  Json decoder_config = source.config, published = Json::object();
  for (const char* field : published_fields) {
    if (decoder_config.contains(field)) published[field] = decoder_config.at(field);
    decoder_config.erase(field);
  }
  decoder_config["architectures"] = {"LlamaForCausalLM"};
  const Json encoder = published.at("encoder_config");
  published.erase("encoder_config");

  formats::write_safetensors(decoder_folder, "model", decoder, metadata_of(source.checkpoint), converted_shard_bytes);
  write_converted_config(decoder_folder, decoder_config);
  copy_tokenizer_files(source.path, decoder_folder);
  formats::write_safetensors(adapter_folder, "adapter", adapter, metadata_of(source.checkpoint), converted_shard_bytes);
  write_converted_config(adapter_folder, {{"model_type", adapter_model_type},
                                          {"format_version", adapter_format_version},
                                          {"chunk_size", 256},
                                          {"encoder", encoder},
                                          {"cross_attention_layers", source.cross_attention_layers},
                                          {"decoder", identity_of(load_decoder(source, {}), name_of(source.path))},
                                          {"trained", true},
                                          {"weights", "dense"},
                                          {"published", published}});
}

void join_cepe_folder(const ModelSource& decoder, const Path& adapter_folder, const Path& output) {
  const AdapterConfig config = read_adapter_config(adapter_folder);
  const formats::Checkpoint weights = formats::Checkpoint::open(adapter_folder);
  check_joinable(decoder, config, weights, adapter_folder);
  if (!config.decoder.is_null()) check_identity(config.decoder, load_decoder(decoder, {}), adapter_folder.string());

  std::vector<NamedTensor> tensors = all_tensors(decoder.checkpoint);
  for (NamedTensor& tensor : all_tensors(weights)) tensors.push_back(std::move(tensor));
  if (config.encoder.shares_embeddings)
    tensors.push_back({"encoder.embed_tokens.weight", decoder.checkpoint.at(decoder.names.embedding + ".weight")});
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });

  Json joined = decoder.config;
  joined.update(published_part(read_json(adapter_folder / "config.json"), config, decoder.decoder));
  formats::write_safetensors(output, "model", tensors, metadata_of(decoder.checkpoint), converted_shard_bytes);
  write_converted_config(output, joined);
  copy_tokenizer_files(decoder.path, output);
}

void convert_to_safetensors(const ModelSource& source, const Path& output, formats::DType block_type) {
  if (!source.checkpoint.is_gguf()) {
    formats::write_safetensors(output, "model", all_tensors(source.checkpoint), metadata_of(source.checkpoint),
                               converted_shard_bytes);
    base::replace_file(output / "config.json", base::read_file(source.path / "config.json", size_t{64} << 20));
    copy_tokenizer_files(source.path, output);
    return;
  }
  const GgufConversion conversion = convert_gguf(source, block_type);
  formats::write_safetensors(output, "model", conversion.tensors, {{"format", "pt"}}, converted_shard_bytes);
  write_converted_config(output, conversion.config);
}

int64_t copy_tokenizer_files(const Path& from, const Path& to) {
  int64_t copied = 0;
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
        "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "generation_config.json"}) {
    if (!base::is_there(from / name)) continue;
    base::replace_file(to / name, base::read_file(from / name));
    ++copied;
  }
  return copied;
}

}  // namespace cepe::model
