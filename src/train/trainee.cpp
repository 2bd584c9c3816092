#include "train/trainee.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/parse_values.h"
#include "model/adapter.h"
#include "model/convert_gguf.h"
#include "model/initialise.h"
#include "model/initialise_random.h"
#include "model/low_rank.h"
#include "model/save.h"
#include "train/batch.h"
#include "train/data_identity.h"
#include "train/memory_check.h"

namespace cepe::train {
namespace {

using base::Error;
using base::ErrorCode;

struct Place {
  at::Device device;
  at::ScalarType type;
};

Place place_of(const Recipe& recipe, at::Device device) {
  const std::string& dtype = recipe.decoder.dtype;
  const bool wide = dtype == "float32" || (dtype == "auto" && device.is_cpu());
  return {device, wide ? at::kFloat : at::kBFloat16};
}

bool trains(const Recipe& recipe, const char* part) {
  return std::find(recipe.trainable.begin(), recipe.trainable.end(), part) != recipe.trainable.end();
}

// Each leaf as one of its own in the place of computing.
template <class Model>
void settle(Model& model, const Place& place) {
  visit_parameters(
      model, [&](at::Tensor& leaf) { leaf = leaf.detach().to(place.device, place.type, false, true).contiguous(); });
}

// Where config.json keeps the scaling of the rope: beside theta in transformers 5, by the kind of layer in Gemma 3.
base::Json& rope_scaling_in(base::Json& config) {
  if (!base::json_has(config, "rope_parameters")) return config["rope_scaling"] = base::Json::object();
  base::Json& rope = config["rope_parameters"];
  return base::json_has(rope, "full_attention") ? rope["full_attention"] : rope;
}

void stretch_positions(model::Decoder& decoder, base::Json& config, const DecoderSettings& settings) {
  if (settings.rope_scaling.empty()) return;
  model::RopeConfig& rope = decoder.config.rope;
  rope.original_positions = decoder.config.max_positions;
  rope.factor = settings.rope_factor;
  rope.scaling = model::rope_scaling_named(settings.rope_scaling, "decoder.rope_scaling");
  decoder.config.max_positions =
      static_cast<int64_t>(static_cast<double>(decoder.config.max_positions) * settings.rope_factor);
  base::Json& text = base::json_has(config, "text_config") ? config["text_config"] : config;
  rope_scaling_in(text).update({{"rope_type", settings.rope_scaling},
                                {"factor", settings.rope_factor},
                                {"original_max_position_embeddings", rope.original_positions}});
  // Dynamic scaling is read as starting there.
  text["max_position_embeddings"] =
      rope.scaling == model::RopeScaling::dynamic ? rope.original_positions : decoder.config.max_positions;
}

void open_decoder(Trainee& trainee, const Recipe& recipe, const base::Path& cache, const Place& place) {
  if (!recipe.decoder.config.empty()) {
    const std::string& path = recipe.decoder.config;
    trainee.decoder_config = base::parse_json(base::read_file(path, size_t{16} << 20), path);
    const model::DecoderConfig config = model::read_decoder_config(trainee.decoder_config, path);
    check_decoder_memory(config, path, base::available_bytes());
    trainee.model.decoder = model::random_decoder(config, static_cast<uint64_t>(recipe.seed));
    visit(trainee.model.decoder,
          [&](const std::string&, at::Tensor& weight) { weight = weight.to(place.device, place.type); });
    trainee.decoder_name = base::Path(path).parent_path().filename().string();
  } else {
    const base::Path path = locate_decoder(recipe, cache);
    trainee.source = model::open_model(path);
    const auto type = place.type == at::kFloat ? model::WeightType::float32 : model::WeightType::bfloat16;
    trainee.model.decoder = model::load_decoder(*trainee.source, {type, place.device, false});
    const auto written = place.type == at::kFloat ? formats::DType::float32 : formats::DType::bfloat16;
    const bool is_saved = trains(recipe, "decoder") || recipe.decoder.low_rank.rank > 0;
    trainee.decoder_config = is_saved && trainee.source->checkpoint.is_gguf()
                                 ? model::hugging_face_config(*trainee.source, written)
                                 : trainee.source->config;
    trainee.decoder_name = path.filename().string();
  }
  trainee.model.decoder.activation_type = place.type;
  stretch_positions(trainee.model.decoder, trainee.decoder_config, recipe.decoder);
}

model::EncoderConfig random_encoder_config(const AdapterSettings& settings, const model::DecoderConfig* decoder,
                                           int64_t vocabulary) {
  const auto required = [](int64_t value, const char* field) {
    if (value < 1)
      throw Error(ErrorCode::invalid_argument, std::string("adapter.") + field + ": a random encoder needs it");
    return value;
  };
  model::EncoderConfig config;
  config.vocabulary = vocabulary;
  config.width = required(settings.encoder_width, "encoder_width");
  config.layers = settings.encoder_layers;
  config.heads = config.groups = required(settings.encoder_heads, "encoder_heads");
  if (config.width % config.heads != 0)
    throw Error(ErrorCode::invalid_argument, "adapter.encoder_width " + std::to_string(config.width) +
                                                 " is no multiple of adapter.encoder_heads " +
                                                 std::to_string(config.heads));
  config.head_width = config.width / config.heads;
  if (config.head_width % 2 != 0)  // positions rotate pairs
    throw Error(ErrorCode::invalid_argument, "adapter.encoder_width " + std::to_string(config.width) + ": each of " +
                                                 std::to_string(config.heads) + " adapter.encoder_heads gets " +
                                                 std::to_string(config.head_width) + ", which must be even");
  config.feed_forward = required(settings.encoder_feed_forward, "encoder_feed_forward");
  config.norm_eps = decoder ? decoder->norm_eps : 1e-5;
  config.rope.width = config.head_width;
  config.rope.theta = decoder ? decoder->rope.theta : 10000;
  return config;
}

std::vector<int64_t> cross_attention_layers(const AdapterSettings& settings, int64_t decoder_layers) {
  std::vector<int64_t> layers;
  if (settings.cross_attention_layers.empty()) {
    for (int64_t layer = 0; layer < decoder_layers; ++layer) layers.push_back(layer);
    return layers;
  }
  layers = base::parse_layers(settings.cross_attention_layers, "adapter.cross_attention_layers");
  model::check_layers(layers, decoder_layers, "adapter.cross_attention_layers: ");
  return layers;
}

model::Adapter new_adapter(const Trainee& trainee, const Recipe& recipe) {
  const model::Decoder& decoder = trainee.model.decoder;
  const AdapterSettings& settings = recipe.adapter;
  const auto seed = static_cast<uint64_t>(recipe.seed);
  const std::vector<int64_t> layers = cross_attention_layers(settings, decoder.config.layers);
  const model::CrossAttentionStart start = model::cross_attention_start(settings.start);
  if (settings.encoder == "decoder")
    return model::initialise_adapter(decoder, {settings.encoder_layers, layers, settings.chunk_size, start, seed});
  model::Adapter adapter;
  adapter.chunk_size = settings.chunk_size;
  adapter.encoder =
      settings.encoder == "random"
          ? model::random_encoder(random_encoder_config(settings, &decoder.config, decoder.config.vocabulary), seed)
          : model::load_masked_language_model(settings.encoder, {model::WeightType::float32}).encoder;
  adapter.cross_attention.resize(decoder.layers.size());
  for (const int64_t layer : layers) {
    adapter.cross_attention[static_cast<size_t>(layer)] =
        model::initialise_cross_attention(decoder, layer, adapter.encoder.config.width, start, seed);
  }
  return adapter;
}

void open_adapter(Trainee& trainee, const Recipe& recipe, const Place& place) {
  model::Adapter adapter =
      recipe.adapter.from.empty()
          ? new_adapter(trainee, recipe)
          : model::load_adapter(recipe.adapter.from, trainee.model.decoder, {model::WeightType::float32, place.device});
  adapter.chunk_size = recipe.adapter.chunk_size;  // the warm-up's chunks are shorter
  settle(adapter, place);
  adapter.encoder.activation_type = place.type;
  if (adapter.encoder.config.shares_embeddings) adapter.encoder.embedding = trainee.model.decoder.embedding;
  trainee.model.adapter = std::move(adapter);
}

void check_parts(const Recipe& recipe, Stage stage) {
  const auto unfit = [&](const char* part, const char* why) {
    if (trains(recipe, part)) throw Error(ErrorCode::invalid_argument, std::string("trainable: '") + part + "' " + why);
  };
  if (stage == Stage::mlm || stage == Stage::decoder)
    unfit("cross_attention", ("is not part of stage " + recipe.stage).c_str());
  if (stage == Stage::mlm) unfit("decoder", "is not part of stage mlm");
  if (stage == Stage::mlm) unfit("low_rank", "is not part of stage mlm");
  if (stage == Stage::decoder) unfit("encoder", "is not part of stage decoder");
  if (recipe.decoder.low_rank.rank == 0) unfit("low_rank", "needs decoder.low_rank.rank above 0");
  if (recipe.decoder.low_rank.targets.empty()) unfit("low_rank", "needs decoder.low_rank.targets");
}

// Beyond its positions a decoder was not trained.
void check_positions(const Recipe& recipe, const model::DecoderConfig& decoder) {
  const int64_t most = decoder.max_positions;
  if (most <= 0) return;
  const std::string has = "; the decoder has " + std::to_string(most) + " positions";
  const auto check_window = [&](const std::string& field, int64_t tokens) {
    if (tokens > most)
      throw Error(ErrorCode::invalid_argument,
                  field + ".decoder_tokens " + std::to_string(tokens) + has +
                      (decoder.learned_positions ? "" : " (decoder.rope_scaling and rope_factor stretch them)"));
  };
  const bool has_teacher = stage_of(recipe.stage) == Stage::ceped && recipe.data.stored_logits.empty();
  for (size_t i = 0; i < recipe.phases.size(); ++i) {
    const std::string field = "phases." + std::to_string(i);
    check_window(field, recipe.phases[i].decoder_tokens);
    const int64_t read = sample_tokens(recipe.phases[i]);
    if (!has_teacher || read <= most) continue;
    std::string what = field + ": the teacher reads context_tokens + windows * decoder_tokens = ";
    what += std::to_string(read) + " tokens directly" + has;
    if (decoder.learned_positions) throw Error(ErrorCode::invalid_argument, what);
    base::warn(what + ", and was not trained beyond them");
  }
  if (recipe.validation.steps > 0) check_window("validation", recipe.validation.decoder_tokens);
}

void append(std::vector<Parameter>& all, std::vector<Parameter> more) {
  std::move(more.begin(), more.end(), std::back_inserter(all));
}

// As it is saved: LoRAs merged. What is not trained shares its storage.
model::Decoder final_decoder(const model::Decoder& trained,
                             const std::function<at::Tensor(const at::Tensor& leaf)>& final_weight) {
  model::Decoder decoder = trained;
  visit_low_rank(decoder, [&](const std::string&, at::Tensor& leaf) { leaf = final_weight(leaf).detach(); });
  const bool merges = std::any_of(decoder.layers.begin(), decoder.layers.end(), [](const model::DecoderLayer& layer) {
    return !layer.attention.query_key_value.low_rank.empty();
  });
  visit(decoder, [&](const std::string&, at::Tensor& leaf) {
    leaf = final_weight(leaf).detach();
    if (merges) leaf = leaf.clone();
  });
  if (merges) merge_low_rank(decoder);
  return decoder;
}

// Whether nobody else has this decoder: it was trained, or made from nothing.
bool is_the_runs_own(const Trainee& trainee) {
  return !trainee.source ||
         std::any_of(trainee.parameters.begin(), trainee.parameters.end(), [](const Parameter& parameter) {
           return parameter.group == Parameter::Group::decoder || parameter.group == Parameter::Group::low_rank;
         });
}

}  // namespace

std::unique_ptr<Trainee> make_trainee(const Recipe& recipe, int64_t vocabulary, const base::Path& cache,
                                      at::Device device) {
  const at::NoGradGuard none;
  const Stage stage = stage_of(recipe.stage);
  check_parts(recipe, stage);
  const Place place = place_of(recipe, device);
  auto trainee = std::make_unique<Trainee>();
  if (stage == Stage::mlm) {
    // [MASK] makes the encoder's vocabulary one larger than the decoder's.
    trainee->masked = model::random_masked_language_model(
        random_encoder_config(recipe.adapter, nullptr, vocabulary + 1), static_cast<uint64_t>(recipe.seed));
    settle(*trainee->masked, place);
    trainee->masked->encoder.activation_type = place.type;
    trainee->parameters = masked_language_model_parameters(*trainee->masked);
    return trainee;
  }
  open_decoder(*trainee, recipe, cache, place);
  model::Decoder& decoder = trainee->model.decoder;
  check_positions(recipe, decoder.config);
  const LowRankSettings& low_rank = recipe.decoder.low_rank;
  if (low_rank.rank > 0) {
    model::add_low_rank(decoder, low_rank.rank,
                        low_rank.alpha > 0 ? low_rank.alpha : 2 * static_cast<double>(low_rank.rank), low_rank.targets,
                        static_cast<uint64_t>(recipe.seed));
  }
  if (stage != Stage::decoder) open_adapter(*trainee, recipe, place);
  if (trains(recipe, "encoder"))
    append(trainee->parameters, encoder_parameters(trainee->model.adapter->encoder, "encoder."));
  if (trains(recipe, "cross_attention"))
    append(trainee->parameters, cross_attention_parameters(*trainee->model.adapter));
  if (trains(recipe, "decoder")) append(trainee->parameters, decoder_parameters(decoder));
  if (trains(recipe, "low_rank")) append(trainee->parameters, low_rank_parameters(decoder));
  return trainee;
}

int64_t vocabulary_of(const Trainee& trainee) {
  if (trainee.masked) return trainee.masked->encoder.config.vocabulary;
  const int64_t decoder = trainee.model.decoder.config.vocabulary;
  if (!trainee.model.adapter || trainee.model.adapter->encoder.config.shares_embeddings) return decoder;
  return std::min(decoder, trainee.model.adapter->encoder.config.vocabulary);
}

void export_trained(const base::Path& folder, const Trainee& trainee,
                    const std::function<at::Tensor(const at::Tensor& leaf)>& final_weight) {
  const at::NoGradGuard none;
  const auto finished = [&](at::Tensor& leaf) { leaf = final_weight(leaf).detach(); };
  if (trainee.masked) {
    model::MaskedLanguageModel masked = *trainee.masked;
    visit_parameters(masked, finished);
    save_masked_language_model(folder, masked);
    return;
  }
  const model::Decoder decoder = final_decoder(trainee.model.decoder, final_weight);
  if (!trainee.model.adapter) {
    save_decoder(folder, decoder, trainee.decoder_config);
    return;
  }
  model::Adapter adapter = *trainee.model.adapter;
  visit_parameters(adapter, finished);
  model::save_adapter(folder, adapter, decoder, {false, true, trainee.decoder_name});
  if (is_the_runs_own(trainee)) save_decoder(folder / "decoder", decoder, trainee.decoder_config);
}

}  // namespace cepe::train
