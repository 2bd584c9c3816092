#include "train/checkpoint_step.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/hash.h"
#include "formats/byte_reader.h"
#include "formats/checkpoint.h"
#include "formats/safetensors.h"
#include "model/weight_reader.h"

namespace cepe::train {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Path;
using formats::DType;

constexpr const char* tensors_file = "tensors.safetensors";
constexpr const char* state_file = "state.json";
constexpr const char* manifest_file = "manifest.json";
constexpr const char* format_name = "cepe training checkpoint 1";

DType dtype_of(const at::Tensor& tensor, const std::string& what) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return DType::float64;
    case at::kFloat:
      return DType::float32;
    case at::kHalf:
      return DType::float16;
    case at::kBFloat16:
      return DType::bfloat16;
    case at::kLong:
      return DType::int64;
    case at::kInt:
      return DType::int32;
    case at::kShort:
      return DType::int16;
    case at::kChar:
      return DType::int8;
    case at::kByte:
      return DType::uint8;
    case at::kBool:
      return DType::boolean;
    default:
      throw Error(ErrorCode::unsupported,
                  what + ": a checkpoint cannot hold the type " + std::string(at::toString(tensor.scalar_type())));
  }
}

std::vector<formats::NamedTensor> describe(const CheckpointState& content) {
  std::vector<formats::NamedTensor> described;
  for (const auto& [name, tensor] : content.tensors) {
    const std::string what = "saving a checkpoint: tensor " + formats::in_quotes(name);
    if (!tensor.defined()) throw Error(ErrorCode::invalid_argument, what + " is not set");
    if (tensor.layout() != at::kStrided) throw Error(ErrorCode::unsupported, what + " is not dense");
    described.push_back({name, {dtype_of(tensor, what), tensor.sizes().vec(), {}}});
  }
  return described;
}

// Appends and hashes, a piece at a time while it is in the processor's cache.
class HashedOutput {
 public:
  HashedOutput(base::FileLayer& files, const Path& file) : output_(files.create(file)) {}

  void append(std::span<const std::byte> bytes) {
    constexpr size_t piece = size_t{1} << 20;
    for (; !bytes.empty(); bytes = bytes.subspan(std::min(piece, bytes.size()))) {
      const auto part = bytes.first(std::min(piece, bytes.size()));
      hash_.update(part);
      output_->append(part);
      bytes_ += part.size();
    }
  }
  void append(std::string_view text) { append(std::as_bytes(std::span(text.data(), text.size()))); }

  // Syncs, and says what a manifest keeps of it.
  Json finish() {
    output_->sync();
    return {{"bytes", bytes_}, {"sha256", base::to_hex(hash_.finish())}};
  }

 private:
  std::unique_ptr<base::FileLayer::Output> output_;
  base::Sha256 hash_;
  uint64_t bytes_ = 0;
};

Json write_tensors(base::FileLayer& files, const Path& file, const CheckpointState& content) {
  const at::NoGradGuard no_gradients;
  const formats::SafetensorsPlan plan = formats::plan_safetensors(describe(content), nullptr);
  HashedOutput output(files, file);
  output.append(plan.head);
  for (const size_t i : plan.order) {
    const at::Tensor tensor = content.tensors[i].second.to(at::kCPU).resolve_neg().contiguous();
    output.append(std::span(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()));
  }
  return output.finish();
}

// The text must be one that parse_json takes back.
std::string text_of(const Json& state) {
  try {
    std::string text = state.dump() + "\n";
    base::parse_json(text, state_file);
    return text;
  } catch (const Json::exception& problem) {
    throw Error(ErrorCode::invalid_argument,
                std::string("saving a checkpoint: the state is no JSON: ") + problem.what());
  } catch (const Error& problem) {
    throw Error(ErrorCode::invalid_argument, std::string("saving a checkpoint: ") + problem.what());
  }
}

std::string digest_of(std::span<const std::byte> bytes) { return base::to_hex(base::sha256(bytes)); }

// The manifest vouches for itself too: its text is exactly that of its fields, one of which is the hash of the others.
std::string seal(Json fields) {
  fields.erase("sha256");
  const std::string text = fields.dump();
  fields["sha256"] = digest_of(std::as_bytes(std::span(text.data(), text.size())));
  return fields.dump() + "\n";
}

Json names_of(const CheckpointState& content) {
  Json names = Json::array();
  for (const auto& [name, tensor] : content.tensors) names.push_back(name);
  return names;
}

[[noreturn]] void fail_corrupt(const Path& file, const std::string& what) {
  formats::fail_corrupt(file.string(), what);
}

std::string_view text_in(const base::FileLayer::Content& content) {
  return {reinterpret_cast<const char*>(content.bytes.data()), content.bytes.size()};
}

Json read_manifest(base::FileLayer& files, const Path& folder, int64_t step) {
  const Path file = folder / manifest_file;
  const base::FileLayer::Content content = files.read(file);
  Json manifest = base::parse_json(text_in(content), file.string());
  if (!manifest.is_object() || seal(manifest) != text_in(content)) fail_corrupt(file, "its checksum does not hold");
  const std::string format = base::json_string(manifest, "format", file.string());
  if (format != format_name) {
    throw Error(ErrorCode::unsupported,
                file.string() + ": format '" + format + "'; this program reads '" + format_name + "'");
  }
  if (base::json_integer(manifest, "step", file.string()) != step) {
    fail_corrupt(file, "is of step " + manifest.at("step").dump() + ", expected " + std::to_string(step));
  }
  return manifest;
}

// The file's content, once it is what the manifest says.
base::FileLayer::Content read_checked(base::FileLayer& files, const Path& file, const Json& manifest) {
  const std::string name = file.filename().string();
  const Path manifest_path = file.parent_path() / manifest_file;
  if (!manifest.contains("files") || !manifest["files"].contains(name)) fail_corrupt(manifest_path, "lacks " + name);
  const Json& expected = manifest["files"][name];
  base::FileLayer::Content content = files.read(file);
  const auto bytes = static_cast<uint64_t>(base::json_integer(expected, "bytes", manifest_path.string()));
  if (content.bytes.size() != bytes) {
    fail_corrupt(file, std::to_string(content.bytes.size()) + " bytes, expected " + std::to_string(bytes));
  }
  if (digest_of(content.bytes) != base::json_string(expected, "sha256", manifest_path.string())) {
    fail_corrupt(file, "its checksum does not hold");
  }
  return content;
}

std::vector<std::pair<std::string, at::Tensor>> read_tensors(base::FileLayer& files, const Path& folder,
                                                             const Json& manifest) {
  const Path file = folder / tensors_file;
  const base::FileLayer::Content content = read_checked(files, file, manifest);
  const formats::ParsedFile parsed = formats::parse_safetensors(content.bytes, file.string());
  std::map<std::string_view, const formats::TensorView*> views;
  for (const auto& [name, view] : parsed.tensors) views[name] = &view;
  const Json names = manifest.value("tensors", Json::array());
  if (names.size() != views.size()) fail_corrupt(file, "the manifest names other tensors");
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const Json& name : names) {
    const auto view = name.is_string() ? views.find(name.get_ref<const std::string&>()) : views.end();
    if (view == views.end()) fail_corrupt(file, "the manifest names other tensors");
    tensors.emplace_back(name.get<std::string>(), model::to_tensor(*view->second));
  }
  return tensors;
}

}  // namespace

void write_step(base::FileLayer& files, const Path& folder, int64_t step, const CheckpointState& content) {
  const std::string state = text_of(content.state);
  files.create_folder(folder);
  Json manifest{{"format", format_name}, {"step", step}, {"tensors", names_of(content)}};
  manifest["files"][tensors_file] = write_tensors(files, folder / tensors_file, content);
  HashedOutput state_output(files, folder / state_file);
  state_output.append(state);
  manifest["files"][state_file] = state_output.finish();
  HashedOutput manifest_output(files, folder / manifest_file);
  manifest_output.append(seal(std::move(manifest)));
  manifest_output.finish();
  files.sync_folder(folder);
}

CheckpointState read_step(base::FileLayer& files, const Path& folder, int64_t step) {
  const Json manifest = read_manifest(files, folder, step);
  const base::FileLayer::Content state = read_checked(files, folder / state_file, manifest);
  CheckpointState content;
  content.state = base::parse_json(text_in(state), (folder / state_file).string());
  content.tensors = read_tensors(files, folder, manifest);
  return content;
}

bool is_complete(base::FileLayer& files, const Path& folder, int64_t step) {
  try {
    read_manifest(files, folder, step);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace cepe::train
