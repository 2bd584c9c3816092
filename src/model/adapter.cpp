#include "model/adapter.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "model/calibrate.h"
#include "model/decoder_identity.h"
#include "model/tensor_view.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

std::vector<int64_t> read_layers(const Json& config, const std::string& where) {
  if (!base::json_has(config, "cross_attention_layers") || !config.at("cross_attention_layers").is_array()) {
    throw Error(ErrorCode::corrupt, where + ": field 'cross_attention_layers' must list decoder layers");
  }
  std::vector<int64_t> layers;
  for (const Json& layer : config.at("cross_attention_layers")) {
    if (!layer.is_number_integer() || layer.get<int64_t>() < 0 || layer.get<int64_t>() > 4096) {
      throw Error(ErrorCode::corrupt, where + ": field 'cross_attention_layers' must hold layer numbers");
    }
    layers.push_back(layer.get<int64_t>());
  }
  std::sort(layers.begin(), layers.end());
  if (std::adjacent_find(layers.begin(), layers.end()) != layers.end()) {
    throw Error(ErrorCode::corrupt, where + ": field 'cross_attention_layers' lists a layer twice");
  }
  return layers;
}

// value = weight * weight_scale[row], the largest magnitude of a row at 127. The scale is rounded to float16 first.
void quantise_rows(const std::string& name, const at::Tensor& weight,
                   std::vector<std::pair<std::string, at::Tensor>>& out) {
  const at::Tensor wide = weight.to(at::kFloat);
  const at::Tensor scale = (wide.abs().amax(1) / 127.0).clamp_min(1e-7).to(at::kHalf);
  const at::Tensor values = (wide / scale.to(at::kFloat).unsqueeze(1)).round().clamp(-127, 127).to(at::kChar);
  out.emplace_back(name, values.contiguous());
  out.emplace_back(name + "_scale", scale.contiguous());
}

}  // namespace

AdapterConfig read_adapter_config(const base::Path& folder) {
  const base::Path path = folder / "config.json";
  const bool has_config = base::is_there(path);
  if (!has_config && base::is_there(folder / "adapter_config.json")) {
    throw Error(
        ErrorCode::unsupported,
        folder.string() +
            ": this is a LoRA/PEFT adapter (adapter_config.json), not a CEPE adapter; merge it into its model instead");
  }
  if (!has_config)
    throw Error(ErrorCode::not_found,
                folder.string() + ": no adapter here (config.json and adapter.safetensors expected)");
  const std::string where = path.string();
  const Json config = base::parse_json(base::read_file(path, size_t{16} << 20), where);
  const int64_t version = base::json_integer(config, "format_version", where, adapter_format_version);
  if (version != adapter_format_version)
    throw Error(ErrorCode::unsupported, where + ": field 'format_version' is " + std::to_string(version) +
                                            "; this program reads " + std::to_string(adapter_format_version));
  AdapterConfig adapter;
  if (!base::json_has(config, "encoder"))
    throw Error(ErrorCode::corrupt, where + ": field 'encoder' is missing; is this an adapter?");
  adapter.encoder = read_encoder_config(config.at("encoder"), where + ": encoder");
  adapter.cross_attention_layers = read_layers(config, where);
  adapter.chunk_size = base::json_integer(config, "chunk_size", where, 256);
  if (adapter.chunk_size < 1 || adapter.chunk_size > 65536)
    throw Error(ErrorCode::corrupt, where + ": field 'chunk_size' must be from 1 to 65536");
  if (base::json_has(config, "decoder")) {
    adapter.decoder = config.at("decoder");
    if (!adapter.decoder.is_object()) throw Error(ErrorCode::corrupt, where + ": field 'decoder' must be an object");
  }
  adapter.trained = base::json_boolean(config, "trained", where, true);
  return adapter;
}

Adapter load_adapter(const base::Path& folder, const Decoder& decoder, const LoadOptions& options) {
  const AdapterConfig config = read_adapter_config(folder);
  if (config.decoder.is_null()) {
    base::warn(folder.string() + ": the adapter does not say which decoder it belongs to; only shapes are checked");
  } else if (!options.allow_mismatch) {
    check_identity(config.decoder, decoder, folder.string());
  }
  for (const int64_t layer : config.cross_attention_layers) {
    if (layer < decoder.config.layers) continue;
    throw Error(ErrorCode::mismatch, folder.string() + ": cross-attention in layer " + std::to_string(layer) +
                                         ", but the decoder has " + std::to_string(decoder.config.layers) + " layers");
  }
  if (config.encoder.shares_embeddings && config.encoder.width != decoder.config.width) {
    throw Error(ErrorCode::mismatch, folder.string() + ": the encoder of width " +
                                         std::to_string(config.encoder.width) + " cannot share embeddings of width " +
                                         std::to_string(decoder.config.width));
  }
  const formats::Checkpoint checkpoint = formats::Checkpoint::open(folder);
  WeightReader reader(checkpoint, options);
  Adapter adapter;
  adapter.chunk_size = config.chunk_size;
  adapter.encoder = load_encoder(reader, config.encoder, "encoder.", &decoder);
  adapter.cross_attention.resize(static_cast<size_t>(decoder.config.layers));
  for (const int64_t layer : config.cross_attention_layers) {
    adapter.cross_attention[static_cast<size_t>(layer)] =
        load_cross_attention(reader, decoder.config, config.encoder.width, layer);
  }
  reader.finish();
  if (is_calibrated(options)) quantise_calibrated(adapter, decoder, options.calibration);
  return adapter;
}

void save_adapter(const base::Path& folder, const Adapter& adapter, const Decoder& decoder,
                  const SaveOptions& options) {
  const at::NoGradGuard none;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  Adapter copy = adapter;
  visit(copy, [&](const std::string& name, at::Tensor& weight) {
    if (!weight.defined())
      throw Error(ErrorCode::unsupported,
                  "an adapter kept in 8-bit rows cannot be saved again; load it with --dtype float32");
    const at::Tensor local = weight.detach().to(at::kCPU);
    if (options.int8_rows && local.dim() == 2) {
      quantise_rows(name, local, tensors);
    } else {
      tensors.emplace_back(name, (local.dim() == 1 ? local.to(at::kFloat) : local).contiguous());
    }
  });
  std::vector<formats::NamedTensor> named;
  named.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) named.push_back({name, view_of(tensor)});

  Json config = {
      {"model_type", adapter_model_type},
      {"format_version", adapter_format_version},
      {"chunk_size", adapter.chunk_size},
      {"encoder", write_encoder_config(adapter.encoder.config)},
      {"decoder", identity_of(decoder, options.decoder_name)},
      {"trained", options.trained},
      {"weights", options.int8_rows ? "int8 rows; value = weight * weight_scale[row]; norms float32" : "dense"}};
  config["cross_attention_layers"] = Json::array();
  for (size_t i = 0; i < adapter.cross_attention.size(); ++i) {
    if (adapter.cross_attention[i]) config["cross_attention_layers"].push_back(i);
  }
  std::filesystem::create_directories(folder);
  constexpr int64_t shard_bytes = int64_t{4} << 30;
  formats::write_safetensors(folder, "adapter", named, {{"format", "pt"}}, shard_bytes);
  base::replace_file(folder / "config.json", config.dump(1) + "\n");
}

}  // namespace cepe::model
