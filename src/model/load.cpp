#include "model/load.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "model/adapter.h"
#include "model/calibrate.h"
#include "model/families/families.h"
#include "model/gguf_config.h"
#include "model/quantise.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

Json read_config(const base::Path& folder) {
  const base::Path path = folder / "config.json";
  if (!base::is_there(path)) {
    if (base::is_there(folder / "adapter_config.json")) {
      throw Error(ErrorCode::unsupported, folder.string() +
                                              ": this is a LoRA/PEFT adapter (adapter_config.json), which is not "
                                              "supported; merge it into its model first");
    }
    throw Error(ErrorCode::not_found,
                folder.string() + ": no config.json; expected a Hugging Face model folder or a .gguf file");
  }
  Json config = base::parse_json(base::read_file(path, size_t{64} << 20), path.string());
  if (base::json_has(config, "model_type") && config.at("model_type") == adapter_model_type) {
    throw Error(ErrorCode::invalid_argument, folder.string() +
                                                 ": this is an adapter, not a model; give its decoder as the model "
                                                 "(--model) and this folder with --adapter");
  }
  return config;
}

// What generation stops at in transformers: chat models often name the end of a turn here alone.
void read_generation_config(ModelSource& source) {
  const base::Path path = source.path / "generation_config.json";
  if (!base::is_there(path)) return;
  const Json config = base::parse_json(base::read_file(path, size_t{1} << 20), path.string());
  if (!config.is_object()) throw Error(ErrorCode::corrupt, path.string() + ": expected a JSON object");
  add_end_tokens(config, source.decoder, path.string());
}

// LlamaForMLM says model_type llama, and its weights have a decoder's names.
void refuse_masked_language_model(const Json& config, const base::Path& folder) {
  const auto found = config.find("architectures");
  if (found == config.end() || *found != Json::array({"LlamaForMLM"})) return;
  throw Error(ErrorCode::invalid_argument,
              folder.string() +
                  ": this is an encoder of stage mlm (LlamaForMLM), not a model; a recipe takes it as "
                  "adapter.encoder");
}

std::vector<int64_t> last_layers(int64_t layers, int64_t count) {
  std::vector<int64_t> list;
  for (int64_t layer = std::max<int64_t>(0, layers - count); layer < layers; ++layer) list.push_back(layer);
  return list;
}

void read_published_cepe(ModelSource& source, const std::string& where) {
  if (!base::json_has(source.config, "encoder_config") ||
      !base::json_boolean(source.config, "do_cross_attention", where, false))
    return;
  source.encoder = read_encoder_config(source.config.at("encoder_config"), where + ": encoder_config");
  const int64_t count = base::json_integer(source.config, "num_cross_attn_layers", where, source.decoder.layers);
  if (count < 0 || count > source.decoder.layers) {
    throw Error(ErrorCode::corrupt, where + ": field 'num_cross_attn_layers' is " + std::to_string(count) +
                                        "; the decoder has " + std::to_string(source.decoder.layers) + " layers");
  }
  source.cross_attention_layers = last_layers(source.decoder.layers, count);
}

void read_rope_divisors(ModelSource& source) {
  if (source.checkpoint.is_gguf() && source.checkpoint.contains("rope_factors_long.weight")) {
    throw Error(ErrorCode::unsupported, source.path.string() +
                                            ": rope type 'longrope' (tensor "
                                            "'rope_factors_long.weight') is not supported");
  }
  if (!source.checkpoint.is_gguf() || !source.checkpoint.contains("rope_freqs.weight")) return;
  const at::Tensor divisors = to_tensor(source.checkpoint.at("rope_freqs.weight")).to(at::kFloat);
  if (divisors.numel() != source.decoder.rope.width / 2) {
    throw Error(ErrorCode::corrupt, source.path.string() + ": tensor 'rope_freqs.weight' has " +
                                        std::to_string(divisors.numel()) + " values; expected " +
                                        std::to_string(source.decoder.rope.width / 2));
  }
  source.decoder.rope.divisors.assign(divisors.data_ptr<float>(), divisors.data_ptr<float>() + divisors.numel());
}

// GGUF's metadata does not say which products have a bias; its tensors do.
void read_gguf_biases(ModelSource& source) {
  const LayerNames& parts = source.names.layers.front();
  const auto has_bias = [&](const std::string& name) { return source.checkpoint.contains(name + ".bias"); };
  const bool on_query = has_bias(parts.query_key_value.front());
  if (on_query && source.names.permuted_query_key) {
    throw Error(ErrorCode::unsupported, source.path.string() + ": tensor '" + parts.query_key_value.front() +
                                            ".bias': biases in the row order of llama are not supported");
  }
  source.decoder.query_key_value_bias |= on_query;
  source.decoder.output_bias |= has_bias(parts.output);
  source.decoder.feed_forward_bias |= has_bias(parts.down);
}

bool is_gguf_file(const base::Path& path) { return std::filesystem::is_regular_file(path); }

SelfAttention load_self_attention(WeightReader& reader, const DecoderConfig& config, const DecoderNames& names,
                                  const LayerNames& parts) {
  const int64_t query_rows = config.heads * config.head_width, key_rows = config.groups * config.head_width;
  MatrixOptions options;
  options.bias = config.query_key_value_bias;
  options.transposed = names.transposed;
  std::vector<int64_t> rows = {query_rows + 2 * key_rows};
  if (parts.query_key_value.size() == 3) {
    rows = {query_rows, key_rows, key_rows};
    if (names.permuted_query_key) options.permuted_heads = {config.heads, config.groups, 0};
  }
  SelfAttention attention;
  attention.query_key_value = reader.linear(parts.query_key_value, rows, config.width, options);
  attention.interleaved = names.interleaved_query_key_value;
  const bool per_head = config.query_key_norm == QueryKeyNorm::per_head;
  if (!parts.query_norm.empty())
    attention.query_norm =
        reader.norm(parts.query_norm, per_head ? config.head_width : query_rows, config.norm_eps, config.norm);
  if (!parts.key_norm.empty())
    attention.key_norm =
        reader.norm(parts.key_norm, per_head ? config.head_width : key_rows, config.norm_eps, config.norm);
  attention.output =
      reader.linear({parts.output}, {config.width}, query_rows, {config.output_bias, names.transposed, {}});
  return attention;
}

DecoderLayer load_layer(WeightReader& reader, const DecoderConfig& config, const DecoderNames& names,
                        const LayerNames& parts) {
  base::throw_if_interrupted();
  const auto norm = [&](const std::string& name) {
    return name.empty() ? Norm{} : reader.norm(name, config.width, config.norm_eps, config.norm);
  };
  DecoderLayer layer;
  layer.attention_norm = norm(parts.attention_norm);
  layer.attention_output_norm = norm(parts.attention_output_norm);
  layer.feed_forward_norm = norm(parts.feed_forward_norm);
  layer.feed_forward_output_norm = norm(parts.feed_forward_output_norm);
  layer.attention = load_self_attention(reader, config, names, parts);
  const int64_t hidden = config.feed_forward;
  std::vector<int64_t> rows = {hidden};
  if (config.gated)
    rows = parts.gate_up.size() == 2 ? std::vector<int64_t>{hidden, hidden} : std::vector<int64_t>{2 * hidden};
  layer.feed_forward.gate_up =
      reader.linear(parts.gate_up, rows, config.width, {config.feed_forward_bias, names.transposed, {}});
  layer.feed_forward.down =
      reader.linear({parts.down}, {config.width}, hidden, {config.feed_forward_bias, names.transposed, {}});
  if (const auto format = format_at_once(reader.options())) quantise(layer, *format);
  return layer;
}

void check_memory(const ModelSource& source, const LoadOptions& options) {
  if (!options.device.is_cpu()) return;
  int64_t need = 0;
  for (const std::string& name : source.checkpoint.names()) {
    need += loaded_bytes(name, source.checkpoint.at(name), options.type, true);
  }
  const int64_t available = base::available_bytes();
  if (available > 0 && need > available) {
    throw Error(ErrorCode::out_of_memory,
                source.path.string() + ": its weights need " + base::human_bytes(need) + " of memory; " +
                    base::human_bytes(available) +
                    " are available. Choose a smaller model, a quantised file, or --dtype bfloat16 or int8");
  }
}

}  // namespace

ModelSource open_model(const base::Path& path) {
  if (!base::is_there(path)) throw Error(ErrorCode::not_found, path.string() + ": no such model folder or file");
  const bool single_file = is_gguf_file(path);
  const Json config_file = single_file ? Json() : read_config(path);
  if (!single_file) refuse_masked_language_model(config_file, path);
  ModelSource source = {path, formats::Checkpoint::open(path), config_file, {}, {}, {}, {}};
  if (source.checkpoint.is_gguf()) {
    source.config = gguf_to_config(source.checkpoint.metadata(), path.string());
    source.decoder = read_decoder_config(source.config, path.string());
    source.decoder.tied = !source.checkpoint.contains("output.weight");
    if (source.decoder.norm == NormKind::rms_unit_offset)
      source.decoder.norm = NormKind::rms;  // the file's norms have 1 added
    source.names = gguf_weight_names(source.decoder);
    read_gguf_biases(source);
    read_rope_divisors(source);
    return source;
  }
  if (single_file) {
    throw Error(ErrorCode::invalid_argument,
                path.string() + ": a single file must be GGUF; give the folder that holds it and its config.json");
  }
  const std::string where = (path / "config.json").string();
  source.decoder = read_decoder_config(source.config, where);
  read_generation_config(source);
  source.names = weight_names(source.decoder, source.checkpoint.names());
  read_published_cepe(source, where);
  return source;
}

Decoder load_decoder(const ModelSource& source, const LoadOptions& options) {
  check_memory(source, options);
  const DecoderConfig& config = source.decoder;
  const DecoderNames& names = source.names;
  WeightReader reader(source.checkpoint, options);
  Decoder decoder;
  decoder.config = config;
  decoder.activation_type = reader.activation_type();
  decoder.embedding = reader.linear({names.embedding}, {config.vocabulary}, config.width);
  if (config.learned_positions)
    decoder.position_embedding =
        reader.tensor(names.position_embedding + ".weight", {config.max_positions, config.width});
  std::optional<DecoderCalibration> calibration;
  if (is_calibrated(options)) calibration.emplace(config, options.calibration, options.device);
  const auto progress =
      calibration ? std::make_unique<base::Progress>("calibrating", config.layers, "layers") : nullptr;
  for (const LayerNames& parts : names.layers) {
    decoder.layers.push_back(load_layer(reader, config, names, parts));
    if (!calibration) continue;
    calibration->quantise_last_layer(decoder);
    progress->advance(1);
  }
  if (calibration && !calibration->found_any())
    base::warn("calibration: the decoder's products are in the file's own blocks and stay as they are");
  decoder.norm = reader.norm(names.norm, config.width, config.norm_eps, config.norm);
  if (!config.tied) {
    decoder.lm_head = reader.linear({names.lm_head}, {config.vocabulary}, config.width);
    if (const auto format = format_at_once(options)) quantise(decoder.lm_head, *format);
    if (calibration) calibration->quantise_head(decoder);
  }
  // A tied model's file may carry its head all the same, and a CEPE folder the adapter: neither is left over.
  std::vector<std::string> own = {};
  if (source.encoder || config.tied) own = {"?"};
  reader.finish(own);
  return decoder;
}

Encoder load_encoder(WeightReader& reader, const EncoderConfig& config, const std::string& prefix,
                     const Decoder* decoder) {
  Encoder encoder;
  encoder.config = config;
  encoder.activation_type = reader.activation_type();
  const int64_t width = config.width, query_rows = config.heads * config.head_width,
                key_rows = config.groups * config.head_width;
  encoder.embedding = config.shares_embeddings ? decoder->embedding
                                               : reader.linear({prefix + "embed_tokens"}, {config.vocabulary}, width);
  for (int64_t i = 0; i < config.layers; ++i) {
    base::throw_if_interrupted();
    const std::string name = prefix + "layers." + std::to_string(i) + ".";
    EncoderLayer layer;
    layer.attention_norm = reader.norm(name + "input_layernorm", width, config.norm_eps);
    layer.query_key_value =
        reader.linear({name + "self_attn.q_proj", name + "self_attn.k_proj", name + "self_attn.v_proj"},
                      {query_rows, key_rows, key_rows}, width);
    layer.output = reader.linear({name + "self_attn.o_proj"}, {width}, query_rows);
    layer.feed_forward_norm = reader.norm(name + "post_attention_layernorm", width, config.norm_eps);
    layer.feed_forward.gate_up = reader.linear({name + "mlp.gate_proj", name + "mlp.up_proj"},
                                               {config.feed_forward, config.feed_forward}, width);
    layer.feed_forward.down = reader.linear({name + "mlp.down_proj"}, {width}, config.feed_forward);
    encoder.layers.push_back(std::move(layer));
  }
  encoder.norm = reader.norm(prefix + "norm", width, config.norm_eps);
  return encoder;
}

CrossAttention load_cross_attention(WeightReader& reader, const DecoderConfig& decoder, int64_t encoder_width,
                                    int64_t layer) {
  base::throw_if_interrupted();
  const std::string name = "model.layers." + std::to_string(layer) + ".cross_attn.";
  const int64_t query_rows = decoder.heads * decoder.head_width, key_rows = decoder.groups * decoder.head_width;
  CrossAttention block;
  block.norm = reader.norm(name + "layernorm", decoder.width, decoder.norm_eps);
  block.query = reader.linear({name + "q_proj"}, {query_rows}, decoder.width);
  block.key = reader.linear({name + "k_proj"}, {key_rows}, encoder_width);
  block.value = reader.linear({name + "v_proj"}, {key_rows}, encoder_width);
  block.output = reader.linear({name + "o_proj"}, {decoder.width}, query_rows);
  if (const auto format = format_at_once(reader.options())) quantise(block, *format);
  return block;
}

CepeModel load_model(const ModelSource& source, const LoadOptions& options) {
  CepeModel model = {load_decoder(source, options), std::nullopt};
  if (!source.encoder) return model;
  WeightReader reader(source.checkpoint, options);
  Adapter adapter;
  adapter.encoder = load_encoder(reader, *source.encoder, "encoder.", &model.decoder);
  adapter.cross_attention.resize(static_cast<size_t>(source.decoder.layers));
  for (const int64_t layer : source.cross_attention_layers) {
    adapter.cross_attention[static_cast<size_t>(layer)] =
        load_cross_attention(reader, source.decoder, source.encoder->width, layer);
  }
  reader.finish({"encoder."});
  if (is_calibrated(options)) quantise_calibrated(adapter, model.decoder, options.calibration);
  model.adapter = std::move(adapter);
  return model;
}

MaskedLanguageModel load_masked_language_model(const base::Path& folder, const LoadOptions& options) {
  const std::string where = (folder / "config.json").string();
  const Json config = read_config(folder);
  const EncoderConfig encoder = read_encoder_config(config, where);
  if (encoder.shares_embeddings) {
    throw Error(ErrorCode::corrupt, where +
                                        ": field 'embeddings' is 'decoder'; an encoder made by stage mlm has "
                                        "embeddings of its own");
  }
  const formats::Checkpoint checkpoint = formats::Checkpoint::open(folder);
  WeightReader reader(checkpoint, options);
  MaskedLanguageModel model;
  model.encoder = load_encoder(reader, encoder, "model.", nullptr);
  model.dense = reader.linear({"lm_dense"}, {encoder.width}, encoder.width, {true, false, {}});
  model.norm = reader.norm("lm_layer_norm", encoder.width, encoder.norm_eps);
  model.output = base::json_boolean(config, "tie_word_embeddings", where, false)
                     ? model.encoder.embedding
                     : reader.linear({"lm_head"}, {encoder.vocabulary}, encoder.width);
  model.output.bias = reader.tensor("lm_bias", {encoder.vocabulary});
  reader.finish();
  return model;
}

int64_t stored_bytes(const formats::Checkpoint& checkpoint) {
  int64_t total = 0;
  for (const std::string& name : checkpoint.names()) total += static_cast<int64_t>(checkpoint.at(name).bytes.size());
  return total;
}

}  // namespace cepe::model
