#include "model/convert_gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "base/half.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "model/weight_reader.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;
using formats::DType;
using formats::TensorView;

// Rows of a matrix (or values of a bias) in another order: row i of the result is row order[i].
std::vector<std::byte> gather_rows(const TensorView& view, const std::vector<int64_t>& order) {
  const size_t row_bytes = view.bytes.size() / order.size();
  std::vector<std::byte> rows(view.bytes.size());
  for (size_t i = 0; i < order.size(); ++i)
    std::memcpy(rows.data() + i * row_bytes, view.bytes.data() + static_cast<size_t>(order[i]) * row_bytes, row_bytes);
  return rows;
}

// [q; k; v], each [H, D] -> [H, 3, D].
std::vector<int64_t> interleaved_order(const DecoderConfig& config) {
  std::vector<int64_t> order;
  for (int64_t head = 0; head < config.heads; ++head) {
    for (int64_t part = 0; part < 3; ++part) {
      for (int64_t i = 0; i < config.head_width; ++i)
        order.push_back((part * config.heads + head) * config.head_width + i);
    }
  }
  return order;
}

std::vector<std::byte> transposed(const TensorView& view) {
  const auto rows = static_cast<size_t>(view.shape.at(0)), columns = static_cast<size_t>(view.shape.at(1));
  const auto size = static_cast<size_t>(formats::block_bytes(view.type));
  std::vector<std::byte> out(view.bytes.size());
  for (size_t row = 0; row < rows; ++row) {
    for (size_t column = 0; column < columns; ++column)
      std::memcpy(out.data() + (column * rows + row) * size, view.bytes.data() + (row * columns + column) * size, size);
  }
  return out;
}

std::vector<std::byte> dense_blocks(const TensorView& view, DType type) {
  std::vector<float> values(static_cast<size_t>(formats::element_count(view)));
  formats::to_float(view, values);
  const auto size = static_cast<size_t>(formats::block_bytes(type));
  std::vector<std::byte> bytes(values.size() * size);
  if (type == DType::float32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t rounded = base::float_to_bfloat16(values[i]);
    std::memcpy(bytes.data() + i * size, &rounded, size);
  }
  return bytes;
}

// What a weight's kind asks for beyond its name.
struct Treatment {
  int64_t permuted_heads = 0;  // rows in GGUF's order of llama
  bool interleave = false, transpose = false, subtract_one = false;
};

class Converter {
 public:
  Converter(const ModelSource& source, DType block_type) : source_(source), block_type_(block_type) {}

  void part(const std::string& from, const std::string& to, const Treatment& treatment) {
    if (from.empty() || to.empty()) return;
    tensor(from + ".weight", to + ".weight", treatment);
    Treatment of_bias = treatment;
    of_bias.transpose = false;
    if (source_.checkpoint.contains(from + ".bias")) tensor(from + ".bias", to + ".bias", of_bias);
  }

  GgufConversion result;

 private:
  void tensor(const std::string& from, const std::string& to, const Treatment& treatment) {
    base::throw_if_interrupted();
    TensorView view = source_.checkpoint.at(from);
    // Row orders first: they hold for blocks too, which lie within rows.
    if (treatment.permuted_heads > 0) hold(view, unpermute_rows(view, treatment.permuted_heads));
    if (treatment.interleave) hold(view, gather_rows(view, interleaved_order(source_.decoder)));
    const bool must_be_float = treatment.subtract_one && view.type != DType::float32;
    if (formats::is_quantised(view.type) || must_be_float) {
      const DType type = must_be_float ? DType::float32 : block_type_;
      hold(view, dense_blocks(view, type));
      view.type = type;
    }
    if (treatment.subtract_one) subtract_one(view);
    if (treatment.transpose) {
      hold(view, transposed(view));
      std::swap(view.shape.at(0), view.shape.at(1));
    }
    result.tensors.push_back({to, view});
  }

  void subtract_one(TensorView& view) {
    std::vector<std::byte> bytes(view.bytes.begin(), view.bytes.end());
    for (size_t at = 0; at < bytes.size(); at += sizeof(float)) {
      float value = 0;
      std::memcpy(&value, bytes.data() + at, sizeof value);
      value -= 1;
      std::memcpy(bytes.data() + at, &value, sizeof value);
    }
    hold(view, std::move(bytes));
  }

  void hold(TensorView& view, std::vector<std::byte> bytes) {
    result.held.push_back(std::move(bytes));
    view.bytes = result.held.back();
  }

  const ModelSource& source_;
  DType block_type_;
};

void convert_layer(Converter& converter, const DecoderConfig& config, const DecoderNames& names,
                   const DecoderNames& target, size_t layer, bool offset_norms) {
  const LayerNames& from = names.layers[layer];
  const LayerNames& to = target.layers[layer];
  const Treatment norm = {.subtract_one = offset_norms}, matrix = {.transpose = target.transposed};
  converter.part(from.attention_norm, to.attention_norm, norm);
  converter.part(from.attention_output_norm, to.attention_output_norm, norm);
  converter.part(from.feed_forward_norm, to.feed_forward_norm, norm);
  converter.part(from.feed_forward_output_norm, to.feed_forward_output_norm, norm);
  converter.part(from.query_norm, to.query_norm, norm);
  converter.part(from.key_norm, to.key_norm, norm);
  for (size_t i = 0; i < from.query_key_value.size(); ++i) {
    Treatment treatment = matrix;
    treatment.interleave = target.interleaved_query_key_value;
    if (names.permuted_query_key && i < 2) treatment.permuted_heads = i == 0 ? config.heads : config.groups;
    converter.part(from.query_key_value[i], to.query_key_value[i], treatment);
  }
  converter.part(from.output, to.output, matrix);
  for (size_t i = 0; i < from.gate_up.size(); ++i) converter.part(from.gate_up[i], to.gate_up[i], matrix);
  converter.part(from.down, to.down, matrix);
}

// Llama 3's scaling (rope.h) as GGUF keeps it: what each frequency is divided by. Between the two wavelengths
// o / 4 and o / 1 a divisor d tells the blend s = (1/d - 1/f) / (1 - 1/f) = (o / wavelength - 1) / 3, and so o.
struct Llama3Rope {
  double factor = 1, original_positions = 8192;
};

double llama3_divisor(const Llama3Rope& rope, double wavelength) {
  const double ratio = rope.original_positions / wavelength;
  if (ratio <= 1) return rope.factor;
  if (ratio >= 4) return 1;
  const double blend = (ratio - 1) / 3;
  return 1 / ((1 - blend) / rope.factor + blend);
}

// The scaling whose divisors these are, if any is.
std::optional<Llama3Rope> llama3_rope(const RopeConfig& rope) {
  const auto wavelength = [&](size_t i) {
    return 2 * M_PI * std::pow(rope.theta, 2.0 * static_cast<double>(i) / static_cast<double>(rope.width));
  };
  Llama3Rope found;
  found.factor = std::round(*std::max_element(rope.divisors.begin(), rope.divisors.end()));
  for (size_t i = 0; i < rope.divisors.size(); ++i) {
    const double divisor = rope.divisors[i];
    if (divisor < 1.001 || divisor > found.factor * 0.999) continue;
    const double blend = (1 / divisor - 1 / found.factor) / (1 - 1 / found.factor);
    found.original_positions = std::round(wavelength(i) * (3 * blend + 1));
    break;
  }
  for (size_t i = 0; i < rope.divisors.size(); ++i) {
    const double expected = llama3_divisor(found, wavelength(i));
    if (std::abs(rope.divisors[i] - expected) > 1e-3 * expected) return std::nullopt;
  }
  return found;
}

void check_rope(const ModelSource& source) {
  if (source.decoder.rope.divisors.empty() || llama3_rope(source.decoder.rope)) return;
  throw Error(ErrorCode::unsupported, source.path.string() +
                                          ": its rope frequencies (tensor 'rope_freqs.weight') cannot be stated in a "
                                          "config.json; use the file as it is");
}

void check_convertible(const ModelSource& source, const DecoderNames& target, DType block_type) {
  check_rope(source);
  for (size_t i = 0; i < target.layers.size(); ++i) {
    if (target.layers[i].query_key_value.size() == source.names.layers[i].query_key_value.size() &&
        target.layers[i].gate_up.size() == source.names.layers[i].gate_up.size())
      continue;
    throw Error(ErrorCode::unsupported, source.path.string() + ": family '" + source.decoder.family +
                                            "' is fused otherwise in config.json folders");
  }
  int64_t need = 0;
  for (const std::string& name : source.checkpoint.names()) {
    const TensorView view = source.checkpoint.at(name);
    if (formats::is_quantised(view.type)) need += formats::element_count(view) * formats::block_bytes(block_type);
  }
  if (const int64_t available = base::available_bytes(); available > 0 && need > available) {
    throw Error(ErrorCode::out_of_memory, source.path.string() + ": converting needs " + base::human_bytes(need) +
                                              " of memory; " + base::human_bytes(available) + " are available");
  }
}

}  // namespace

base::Json hugging_face_config(const ModelSource& source, DType type) {
  check_rope(source);
  base::Json config = source.config;
  if (!source.decoder.rope.divisors.empty()) {
    const Llama3Rope rope = *llama3_rope(source.decoder.rope);
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", rope.factor},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", static_cast<int64_t>(rope.original_positions)}};
  }
  config["tie_word_embeddings"] = source.decoder.tied;
  config["torch_dtype"] = formats::name_of(type);
  if (source.decoder.query_key_value_bias && !config.contains("attention_bias")) config["attention_bias"] = true;
  if (source.decoder.feed_forward_bias && !config.contains("mlp_bias")) config["mlp_bias"] = true;
  return config;
}

GgufConversion convert_gguf(const ModelSource& source, DType block_type) {
  const DecoderConfig& config = source.decoder;
  const DecoderNames target = weight_names(config);
  check_convertible(source, target, block_type);
  const bool offset_norms = read_decoder_config(source.config, source.path.string()).norm == NormKind::rms_unit_offset;
  Converter converter(source, block_type);
  converter.part(source.names.embedding, target.embedding, {});
  converter.part(source.names.position_embedding, target.position_embedding, {});
  converter.part(source.names.norm, target.norm, {.subtract_one = offset_norms});
  if (!config.tied) converter.part(source.names.lm_head, target.lm_head, {});
  for (size_t layer = 0; layer < target.layers.size(); ++layer)
    convert_layer(converter, config, source.names, target, layer, offset_norms);
  converter.result.config = hugging_face_config(source, block_type);
  return std::move(converter.result);
}

}  // namespace cepe::model
