#include "model/sentence_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "model/attention.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;

SentenceEncoderConfig read_sentence_config(const base::Path& folder) {
  const std::string where = (folder / "config.json").string();
  const base::Json config = base::parse_json(base::read_file(where, size_t{16} << 20), where);
  if (const std::string type = base::json_string(config, "model_type", where); type != "bert") {
    throw Error(ErrorCode::unsupported, where + ": model_type '" + type + "' is no sentence encoder; known is bert");
  }
  if (const std::string kind = base::json_string(config, "position_embedding_type", where, "absolute");
      kind != "absolute") {
    throw Error(ErrorCode::unsupported, where + ": position_embedding_type '" + kind + "'; known is absolute");
  }
  const auto positive = [&](const char* field) {
    const int64_t value = base::json_integer(config, field, where);
    if (value >= 1 && value <= int64_t{1} << 24) return value;
    throw Error(ErrorCode::corrupt, where + ": field '" + field + "' is " + std::to_string(value));
  };
  SentenceEncoderConfig read = {positive("vocab_size"),
                                positive("hidden_size"),
                                positive("num_hidden_layers"),
                                positive("num_attention_heads"),
                                positive("intermediate_size"),
                                positive("max_position_embeddings"),
                                base::json_integer(config, "type_vocab_size", where, 2),
                                base::json_number(config, "layer_norm_eps", where, 1e-12),
                                read_activation(config, where, "gelu")};
  if (read.width % read.heads != 0) {
    throw Error(ErrorCode::corrupt, where + ": field 'num_attention_heads' must divide hidden_size");
  }
  return read;
}

SentenceEncoderLayer load_sentence_layer(WeightReader& reader, const SentenceEncoderConfig& config,
                                         const std::string& name) {
  const MatrixOptions with_bias = {true, false, {}};
  const int64_t width = config.width;
  const auto norm = [&](const char* part) {
    return reader.norm(name + part + ".LayerNorm", width, config.norm_eps, NormKind::layer);
  };
  SentenceEncoderLayer layer;
  layer.query_key_value =
      reader.linear({name + "attention.self.query", name + "attention.self.key", name + "attention.self.value"},
                    {width, width, width}, width, with_bias);
  layer.output = reader.linear({name + "attention.output.dense"}, {width}, width, with_bias);
  layer.attention_norm = norm("attention.output");
  layer.feed_forward.gate_up = reader.linear({name + "intermediate.dense"}, {config.feed_forward}, width, with_bias);
  layer.feed_forward.down = reader.linear({name + "output.dense"}, {width}, config.feed_forward, with_bias);
  layer.feed_forward_norm = norm("output");
  return layer;
}

}  // namespace

SentenceEncoder load_sentence_encoder(const base::Path& folder, const LoadOptions& options) {
  SentenceEncoder encoder;
  encoder.config = read_sentence_config(folder);
  const SentenceEncoderConfig& config = encoder.config;
  const formats::Checkpoint checkpoint = formats::Checkpoint::open(folder);
  WeightReader reader(checkpoint, options);
  const std::string prefix = reader.contains("bert.embeddings.word_embeddings.weight") ? "bert." : "";
  const std::string name = prefix + "embeddings.";
  encoder.embedding = reader.linear({name + "word_embeddings"}, {config.vocabulary}, config.width);
  encoder.position_embedding = reader.tensor(name + "position_embeddings.weight", {config.max_positions, config.width});
  encoder.token_type_embedding =
      reader.tensor(name + "token_type_embeddings.weight", {config.token_types, config.width});
  encoder.embedding_norm = reader.norm(name + "LayerNorm", config.width, config.norm_eps, NormKind::layer);
  for (int64_t i = 0; i < config.layers; ++i) {
    encoder.layers.push_back(load_sentence_layer(reader, config, prefix + "encoder.layer." + std::to_string(i) + "."));
  }
  // The pooler and training heads are of no use here.
  reader.finish({prefix + "encoder."});
  return encoder;
}

at::Tensor forward(const SentenceEncoder& encoder, const at::Tensor& ids, const at::Tensor& mask) {
  const SentenceEncoderConfig& config = encoder.config;
  const int64_t count = ids.size(0), length = ids.size(1), head_width = config.width / config.heads;
  if (length > config.max_positions) {
    throw Error(ErrorCode::invalid_argument, "a passage of " + std::to_string(length) +
                                                 " tokens; the sentence encoder reads at most " +
                                                 std::to_string(config.max_positions));
  }
  const at::ScalarType type = encoder.position_embedding.scalar_type();
  at::Tensor hidden = look_up(encoder.embedding, ids.reshape({-1}), type).reshape({count, length, -1}) +
                      encoder.position_embedding.narrow(0, 0, length) + encoder.token_type_embedding[0];
  hidden = forward(encoder.embedding_norm, hidden);
  const at::Tensor real = mask.defined() ? mask.ne(0) : mask;
  for (const SentenceEncoderLayer& layer : encoder.layers) {
    const at::Tensor heads =
        forward(layer.query_key_value, hidden).reshape({count, length, 3, config.heads, head_width});
    const at::Tensor attended = attend_chunks(heads.select(2, 0), heads.select(2, 1), heads.select(2, 2), real,
                                              1 / std::sqrt(static_cast<double>(head_width)));
    hidden =
        forward(layer.attention_norm, hidden + forward(layer.output, attended.reshape({count, length, config.width})));
    hidden = forward(layer.feed_forward_norm, hidden + forward(layer.feed_forward, hidden, config.activation, false));
  }
  return hidden;
}

at::Tensor embed(const SentenceEncoder& encoder, const at::Tensor& ids, const at::Tensor& mask, bool normalise) {
  const at::Tensor hidden = forward(encoder, ids, mask).to(at::kFloat);
  at::Tensor mean;  // [n, E]
  if (mask.defined()) {
    const at::Tensor weights = mask.ne(0).to(at::kFloat).unsqueeze(-1);
    mean = (hidden * weights).sum(1) / weights.sum(1).clamp_min(1);
  } else {
    mean = hidden.mean(1);
  }
  return normalise ? mean / at::linalg_vector_norm(mean, 2, at::IntArrayRef{-1}, true).clamp_min(1e-12) : mean;
}

}  // namespace cepe::model
