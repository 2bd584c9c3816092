#include "engine/calibration_text.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "text/utf8.h"

namespace cepe::engine {
namespace {

constexpr int64_t window_tokens = 512, most_windows = 128, least_windows = 8;

constexpr size_t most_bytes = size_t{4} << 20;

std::string beginning_of(const base::Path& file) {
  const base::MappedFile mapped(file);
  const auto bytes = mapped.bytes().first(std::min(most_bytes, mapped.bytes().size()));
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  text.resize(text::complete_prefix(text));
  if (!text::is_utf8(text))
    throw base::Error(base::ErrorCode::invalid_argument, "calibration text " + file.string() + ": no UTF-8 text");
  return text;
}

}  // namespace

at::Tensor calibration_windows(const base::Path& file, const text::Tokenizer& tokenizer) {
  const std::vector<text::Token> tokens = tokenizer.encode(beginning_of(file));
  const auto count = static_cast<int64_t>(tokens.size());
  const int64_t windows = std::min(most_windows, count / window_tokens);
  if (windows < least_windows) {
    throw base::Error(base::ErrorCode::invalid_argument, "calibration text " + file.string() + ": it has " +
                                                             std::to_string(count) + " tokens; calibration needs " +
                                                             std::to_string(least_windows * window_tokens) +
                                                             ", of text like that which the model will read");
  }
  at::Tensor ids = at::empty({windows, window_tokens}, at::kLong);
  auto* to = ids.mutable_data_ptr<int64_t>();
  for (int64_t window = 0; window < windows; ++window) {
    const int64_t first = (count - window_tokens) * window / (windows - 1);
    std::copy_n(tokens.begin() + first, window_tokens, to + window * window_tokens);
  }
  return ids;
}

}  // namespace cepe::engine
