#include "model/decoder_identity.h"

#include <ATen/ops/arange.h>

#include <cmath>
#include <vector>

#include "base/error.h"

namespace cepe::model {
namespace {

constexpr int64_t sketch_rows = 16;
constexpr int64_t sketch_columns = 16;
// Correlation of two sketches of one model, one of them in 4-bit blocks, is above 0.98; of two models about 0.
constexpr double least_correlation = 0.9;

// rows x columns values spread evenly over a table.
std::vector<float> sample(const Linear& table) {
  const int64_t rows = table.out_features(), columns = table.in_features();
  const at::Tensor ids = at::arange(sketch_rows, at::kLong).mul_(rows).floor_divide_(sketch_rows);
  const at::Device device = (table.packed ? table.packed->data : table.weight).device();
  const at::Tensor picked = look_up(table, ids.to(device), at::kFloat).to(at::kCPU).contiguous();
  std::vector<float> values;
  for (int64_t row = 0; row < sketch_rows; ++row) {
    for (int64_t i = 0; i < sketch_columns; ++i)
      values.push_back(picked.data_ptr<float>()[row * columns + i * columns / sketch_columns]);
  }
  return values;
}

std::vector<float> sketch(const Decoder& decoder) {
  std::vector<float> values = sample(decoder.embedding);
  for (const size_t layer : {decoder.layers.size() / 2, decoder.layers.size() - 1}) {
    const std::vector<float> more = sample(decoder.layers[layer].feed_forward.down);
    values.insert(values.end(), more.begin(), more.end());
  }
  return values;
}

// Pearson correlation of each table's part, the smallest of them.
double similarity(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return -1;
  constexpr size_t part = sketch_rows * sketch_columns;
  double least = 1;
  for (size_t first = 0; first < a.size(); first += part) {
    double aa = 0, bb = 0, ab = 0;
    for (size_t i = first; i < first + part; ++i) aa += a[i] * a[i], bb += b[i] * b[i], ab += a[i] * b[i];
    least = std::min(least, aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : (aa == bb ? 1.0 : 0.0));
  }
  return least;
}

// Of models with the same blocks one name: a GGUF file calls a Mistral without a window, and every Gemma 3, by another
// than the model's folder.
std::string family_of(const std::string& name) {
  if (name == "mistral") return "llama";
  return name == "gemma3" ? "gemma3_text" : name;
}

base::Json shape_of(const DecoderConfig& config) {
  return {{"family", config.family},
          {"vocab_size", config.vocabulary},
          {"hidden_size", config.width},
          {"num_hidden_layers", config.layers},
          {"num_attention_heads", config.heads},
          {"num_key_value_heads", config.groups},
          {"head_dim", config.head_width}};
}

}  // namespace

base::Json identity_of(const Decoder& decoder, const std::string& name) {
  base::Json identity = shape_of(decoder.config);
  identity["name"] = name;
  base::Json values = base::Json::array();
  // Four digits are enough, and keep the file readable.
  for (const float value : sketch(decoder)) values.push_back(std::round(value * 1e4) / 1e4);
  identity["sketch"] = values;
  return identity;
}

void check_identity(const base::Json& identity, const Decoder& decoder, const std::string& where) {
  const std::string name = base::json_string(identity, "name", where, "another decoder");
  const base::Json shape = shape_of(decoder.config);
  const auto refuse = [&](const std::string& what) {
    throw base::Error(base::ErrorCode::mismatch, where + ": this adapter was made for " + name +
                                                     ", not for the model given (" + what + "); choose that model");
  };
  for (const auto& [field, value] : shape.items()) {
    if (!identity.contains(field)) continue;
    const base::Json& expected = identity.at(field);
    const bool same = field == "family" && expected.is_string()
                          ? family_of(expected.get<std::string>()) == family_of(value.get<std::string>())
                          : expected == value;
    if (!same) refuse(field + " " + expected.dump() + " expected, " + value.dump() + " given");
  }
  if (!base::json_has(identity, "sketch")) return;
  std::vector<float> expected;
  for (const base::Json& value : identity.at("sketch")) {
    if (!value.is_number())
      throw base::Error(base::ErrorCode::corrupt, where + ": field 'decoder.sketch' must hold numbers");
    expected.push_back(value.get<float>());
  }
  if (similarity(expected, sketch(decoder)) < least_correlation) refuse("the same shape, but other weights");
}

}  // namespace cepe::model
