#include "train/metrics_log.h"

#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace cepe::train {
namespace {

using base::Error;
using base::ErrorCode;
using base::OrderedJson;
using base::Path;

// Nothing for what is no line of ours.
std::optional<int64_t> step_of_line(std::string_view line) {
  try {
    return base::json_integer(base::parse_json(line, "line"), "step", "line");
  } catch (const Error&) {
    return std::nullopt;
  }
}

// Bytes of the file that stay.
size_t kept_bytes(std::string_view text, int64_t last_step, const Path& file) {
  size_t kept = 0;
  size_t broken_line = 0;  // 0: none
  size_t number = 1;
  for (size_t begin = 0; begin < text.size(); ++number) {
    const size_t end = text.find('\n', begin);
    if (end == text.npos) break;
    const auto step = step_of_line(text.substr(begin, end - begin));
    if (step && *step > last_step) break;
    if (step && broken_line) {
      throw Error(ErrorCode::corrupt, file.string() + ": line " + std::to_string(broken_line) +
                                          " is no JSON object with a whole number 'step'; mend or move the file");
    }
    if (step) {
      kept = end + 1;
    } else if (!broken_line) {
      broken_line = number;
    }
    begin = end + 1;
  }
  return kept;
}

Path cut_off(const Path& file, int64_t last_step) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return file;
  size_t size = 0, kept = 0;
  {
    const base::MappedFile mapped(file);
    size = mapped.bytes().size();
    if (last_step >= 0)
      kept = kept_bytes({reinterpret_cast<const char*>(mapped.bytes().data()), size}, last_step, file);
  }
  if (kept < size) std::filesystem::resize_file(file, kept, error);
  if (error) throw Error(ErrorCode::io, file.string() + ": cannot cut off its end: " + error.message());
  return file;
}

}  // namespace

MetricsLog::MetricsLog(const Path& file, int64_t resume_after_step)
    : file_(cut_off(file, resume_after_step), AppendedFile::Start::at_end) {}

void MetricsLog::write(int64_t step, OrderedJson values) {
  if (!values.is_object() || values.contains("step")) {
    throw Error(ErrorCode::invalid_argument,
                "metrics of step " + std::to_string(step) + " must be a JSON object without a 'step' of its own");
  }
  OrderedJson line{{"step", step}};
  for (auto& [name, value] : values.items()) line[name] = std::move(value);
  // dump writes null for what is no number: nlohmann's documentation, "Number handling", NaN.
  file_.append(line.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
  file_.flush();
}

}  // namespace cepe::train
