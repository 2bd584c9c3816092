#include "model/weight_reader.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "base/log.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;
using formats::DType;
using formats::TensorView;

std::optional<at::ScalarType> scalar_type(DType type) {
  switch (type) {
    case DType::float64:
      return at::kDouble;
    case DType::float32:
      return at::kFloat;
    case DType::float16:
      return at::kHalf;
    case DType::bfloat16:
      return at::kBFloat16;
    case DType::int64:
      return at::kLong;
    case DType::int32:
      return at::kInt;
    case DType::int16:
      return at::kShort;
    case DType::int8:
      return at::kChar;
    case DType::uint8:
      return at::kByte;
    case DType::boolean:
      return at::kBool;
    default:
      return std::nullopt;
  }
}

std::optional<ops::PackedFormat> packed_format(DType type) {
  if (type == DType::q4_0) return ops::PackedFormat::q4_0;
  if (type == DType::q4_1) return ops::PackedFormat::q4_1;
  if (type == DType::q8_0) return ops::PackedFormat::q8_0;
  return std::nullopt;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// Tensors that some files carry and nothing needs.
bool is_harmless(const std::string& name) {
  return name.find("rotary_emb") != std::string::npos || name.find("rope_freqs") != std::string::npos ||
         name.find(".attn.bias") != std::string::npos || name.find("masked_bias") != std::string::npos ||
         name.find(".attention.bias") != std::string::npos;
}

}  // namespace

at::Tensor to_tensor(const TensorView& view) {
  const std::optional<at::ScalarType> type = scalar_type(view.type);
  at::Tensor tensor = at::empty(view.shape, type.value_or(at::kFloat));
  if (type) {
    if (!view.bytes.empty()) std::memcpy(tensor.data_ptr(), view.bytes.data(), view.bytes.size());
  } else {
    formats::to_float(view, {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())});
  }
  return tensor;
}

std::vector<std::byte> unpermute_rows(const TensorView& view, int64_t heads) {
  const auto rows = static_cast<size_t>(view.shape.at(0));
  const size_t row_bytes = view.bytes.size() / rows, width = rows / static_cast<size_t>(heads);
  std::vector<std::byte> ordered(view.bytes.size());
  for (size_t row = 0; row < rows; ++row) {
    const size_t head = row / width, p = row % width;
    // HF row p of a head = GGUF row 2p, HF row p + D/2 = GGUF row 2p + 1.
    const size_t source = head * width + (p < width / 2 ? 2 * p : 2 * (p - width / 2) + 1);
    std::memcpy(ordered.data() + row * row_bytes, view.bytes.data() + source * row_bytes, row_bytes);
  }
  return ordered;
}

WeightReader::WeightReader(const formats::Checkpoint& checkpoint, const LoadOptions& options)
    : checkpoint_(checkpoint), options_(options) {}

at::ScalarType WeightReader::weight_type() const {
  return options_.type == WeightType::float32 ? at::kFloat : at::kBFloat16;
}

at::ScalarType WeightReader::activation_type() const { return options_.device.is_cpu() ? at::kFloat : weight_type(); }

bool WeightReader::take(const std::string& name) {
  used_.insert(name);
  if (checkpoint_.contains(name)) return true;
  missing_.push_back(name);
  return false;
}

void WeightReader::check_shape(const std::string& name, const std::vector<int64_t>& found,
                               const std::vector<int64_t>& expected) const {
  if (found == expected) return;
  throw Error(ErrorCode::corrupt, checkpoint_.path().string() + ": tensor '" + name + "' has shape " +
                                      shape_text(found) + "; the configuration asks for " + shape_text(expected));
}

at::Tensor WeightReader::tensor(const std::string& name, const std::vector<int64_t>& shape) {
  if (!take(name)) return at::zeros(shape, options_.device);
  const TensorView view = checkpoint_.at(name);
  check_shape(name, view.shape, shape);
  return to_tensor(view).to(options_.device, activation_type());
}

Norm WeightReader::norm(const std::string& name, int64_t width, double eps, NormKind kind) {
  Norm norm = {tensor(name + ".weight", {width}), {}, eps, kind};
  if (kind == NormKind::layer && checkpoint_.contains(name + ".bias")) norm.bias = tensor(name + ".bias", {width});
  return norm;
}

at::Tensor WeightReader::dense_part(const std::string& name, int64_t out, int64_t in, bool transposed,
                                    int64_t permuted_heads) {
  if (!take(name + ".weight")) return at::zeros({out, in}, options_.device);
  TensorView view = checkpoint_.at(name + ".weight");
  check_shape(name + ".weight", view.shape, transposed ? std::vector<int64_t>{in, out} : std::vector<int64_t>{out, in});
  std::vector<std::byte> ordered;
  if (permuted_heads > 0) {
    ordered = unpermute_rows(view, permuted_heads);
    view.bytes = ordered;
  }
  at::Tensor part = to_tensor(view);
  if (view.type == DType::int8) {
    if (!take(name + ".weight_scale")) return at::zeros({out, in}, options_.device);
    part = part.to(at::kFloat) * to_tensor(checkpoint_.at(name + ".weight_scale")).to(at::kFloat).unsqueeze(1);
  }
  const bool keeps_float = keeps_stored(options_.type) && options_.device.is_cpu() && view.type == DType::float32;
  part = part.to(options_.device, keeps_float ? at::kFloat : weight_type());
  return transposed ? part.t() : part;
}

// Packed where every part stands in the same block format (or 8-bit rows) and packing is wanted; else empty.
Linear WeightReader::packed(const std::vector<std::string>& names, const std::vector<int64_t>& out, int64_t in,
                            const MatrixOptions& options) {
  if (!keeps_stored(options_.type) || !options_.device.is_cpu() || options.transposed) return {};
  std::vector<ops::PackedWeight> parts;
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string name = names[i] + ".weight";
    if (!checkpoint_.contains(name)) return {};
    TensorView view = checkpoint_.at(name);
    const auto format = packed_format(view.type);
    if (view.shape != std::vector<int64_t>{out[i], in}) return {};
    if (view.type == DType::int8 && checkpoint_.contains(name + "_scale")) {
      parts.push_back(ops::pack_int8_rows(to_tensor(view), to_tensor(checkpoint_.at(name + "_scale")).to(at::kFloat)));
    } else if (format && in % 32 == 0) {
      std::vector<std::byte> ordered;
      if (!options.permuted_heads.empty() && options.permuted_heads[i] > 0) {
        ordered = unpermute_rows(view, options.permuted_heads[i]);
        view.bytes = ordered;
      }
      parts.push_back(ops::pack_blocks(*format, out[i], in, view.bytes));
    } else {
      return {};
    }
    if (parts.back().format != parts.front().format) return {};
  }
  for (const std::string& name : names) {
    used_.insert(name + ".weight");
    used_.insert(name + ".weight_scale");
  }
  Linear linear;
  linear.packed = std::make_shared<ops::PackedWeight>(parts.size() == 1 ? parts.front() : ops::concatenate(parts));
  return linear;
}

Linear WeightReader::linear(const std::vector<std::string>& names, const std::vector<int64_t>& out, int64_t in,
                            const MatrixOptions& options) {
  Linear linear = packed(names, out, in, options);
  std::vector<at::Tensor> weights, biases;
  for (size_t i = 0; i < names.size(); ++i) {
    const int64_t heads = options.permuted_heads.empty() ? 0 : options.permuted_heads[i];
    if (!linear.packed) weights.push_back(dense_part(names[i], out[i], in, options.transposed, heads));
    if (options.bias) biases.push_back(tensor(names[i] + ".bias", {out[i]}));
  }
  if (weights.size() == 1) linear.weight = weights.front();
  if (weights.size() > 1) {
    const bool same = std::all_of(weights.begin(), weights.end(),
                                  [&](const at::Tensor& w) { return w.scalar_type() == weights[0].scalar_type(); });
    if (!same) {
      for (at::Tensor& weight : weights) weight = weight.to(weight_type());
    }
    linear.weight = at::cat(weights, 0);
  }
  if (!biases.empty()) linear.bias = biases.size() == 1 ? biases.front() : at::cat(biases, 0);
  return linear;
}

void WeightReader::finish(const std::vector<std::string>& prefixes) {
  if (!missing_.empty()) {
    constexpr size_t shown = 12;
    std::string list;
    for (size_t i = 0; i < std::min(missing_.size(), shown); ++i) list += "\n  " + missing_[i];
    if (missing_.size() > shown) list += "\n  ... and " + std::to_string(missing_.size() - shown) + " more";
    throw Error(ErrorCode::not_found,
                checkpoint_.path().string() + ": " + std::to_string(missing_.size()) + " tensors are missing:" + list);
  }
  for (const std::string& name : checkpoint_.names()) {
    const bool counts = prefixes.empty() || std::any_of(prefixes.begin(), prefixes.end(),
                                                        [&](const std::string& p) { return name.rfind(p, 0) == 0; });
    if (counts && !used_.contains(name) && !is_harmless(name)) {
      base::warn(checkpoint_.path().string() + ": tensor '" + name + "' is not used by this model");
    }
  }
}

}  // namespace cepe::model
