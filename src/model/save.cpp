#include "model/save.h"

#include <ATen/core/grad_mode.h>

#include <utility>
#include <vector>

#include "base/error.h"
#include "formats/checkpoint.h"
#include "model/tensor_view.h"
#include "model/weight_names.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;

// Tensors to be written: copies on the CPU under their names.
class Weights {
 public:
  void add(const std::string& name, const at::Tensor& tensor) {
    tensors_.emplace_back(name, tensor.detach().to(at::kCPU).contiguous());
  }
  void add(const std::string& name, const Norm& norm) {
    if (!norm) return;
    add(name + ".weight", norm.weight);
    if (norm.bias.defined()) add(name + ".bias", norm.bias);
  }
  // A fused weight's parts, equal in number to `names` and `rows`.
  void add(const std::vector<std::string>& names, const std::vector<int64_t>& rows, const Linear& linear) {
    if (!linear.weight.defined() || !linear.low_rank.empty())
      throw Error(ErrorCode::unsupported, names.front() + ": only dense weights with LoRAs merged are saved");
    int64_t first = 0;
    for (size_t i = 0; i < names.size(); ++i) {
      add(names[i] + ".weight", linear.weight.narrow(0, first, rows[i]));
      if (linear.bias.defined()) add(names[i] + ".bias", linear.bias.narrow(0, first, rows[i]));
      first += rows[i];
    }
  }
  void write(const base::Path& folder) const {
    std::vector<formats::NamedTensor> named;
    for (const auto& [name, tensor] : tensors_) named.push_back({name, view_of(tensor)});
    constexpr int64_t shard_bytes = int64_t{4} << 30;
    formats::write_safetensors(folder, "model", named, {{"format", "pt"}}, shard_bytes);
  }

 private:
  std::vector<std::pair<std::string, at::Tensor>> tensors_;
};

void add_layer(Weights& weights, const DecoderLayer& layer, const LayerNames& names, const DecoderConfig& config) {
  weights.add(names.attention_norm, layer.attention_norm);
  weights.add(names.attention_output_norm, layer.attention_output_norm);
  weights.add(names.feed_forward_norm, layer.feed_forward_norm);
  weights.add(names.feed_forward_output_norm, layer.feed_forward_output_norm);
  weights.add(names.query_norm, layer.attention.query_norm);
  weights.add(names.key_norm, layer.attention.key_norm);
  const int64_t queries = config.heads * config.head_width, keys = config.groups * config.head_width;
  const bool apart = names.query_key_value.size() == 3;
  weights.add(names.query_key_value,
              apart ? std::vector<int64_t>{queries, keys, keys} : std::vector<int64_t>{queries + 2 * keys},
              layer.attention.query_key_value);
  weights.add({names.output}, {config.width}, layer.attention.output);
  const int64_t hidden = layer.feed_forward.gate_up.out_features() / static_cast<int64_t>(names.gate_up.size());
  weights.add(names.gate_up, std::vector<int64_t>(names.gate_up.size(), hidden), layer.feed_forward.gate_up);
  weights.add({names.down}, {config.width}, layer.feed_forward.down);
}

void write_config(const base::Path& folder, const base::Json& config) {
  base::replace_file(folder / "config.json", config.dump(1) + "\n");
}

}  // namespace

void save_decoder(const base::Path& folder, const Decoder& decoder, const base::Json& config) {
  const at::NoGradGuard none;
  const DecoderNames names = weight_names(decoder.config);
  if (names.transposed || names.interleaved_query_key_value)
    throw Error(ErrorCode::unsupported, "a trained decoder of family '" + decoder.config.family + "' cannot be saved");
  // GGUF files hold Gemma's norms with 1 added, its folders without.
  if (read_decoder_config(config, folder.string()).norm != decoder.config.norm)
    throw Error(ErrorCode::unsupported, "a trained decoder of family '" + decoder.config.family +
                                            "' cannot be saved when it was read from a GGUF file; convert that first");
  Weights weights;
  weights.add({names.embedding}, {decoder.config.vocabulary}, decoder.embedding);
  for (size_t i = 0; i < decoder.layers.size(); ++i)
    add_layer(weights, decoder.layers[i], names.layers[i], decoder.config);
  weights.add(names.norm, decoder.norm);
  if (decoder.lm_head) weights.add({names.lm_head}, {decoder.config.vocabulary}, decoder.lm_head);
  std::filesystem::create_directories(folder);
  weights.write(folder);
  write_config(folder, config);
}

void save_masked_language_model(const base::Path& folder, const MaskedLanguageModel& model) {
  const at::NoGradGuard none;
  MaskedLanguageModel copy = model;
  Weights weights;
  visit(copy, [&](const std::string& name, at::Tensor& tensor) { weights.add(name, tensor); });
  base::Json config = write_encoder_config(model.encoder.config);
  config["architectures"] = {"LlamaForMLM"};
  config["model_type"] = "llama";
  config["tie_word_embeddings"] = model.output.weight.is_same(model.encoder.embedding.weight);
  config["max_position_embeddings"] = 512;
  std::filesystem::create_directories(folder);
  weights.write(folder);
  write_config(folder, config);
}

}  // namespace cepe::model
