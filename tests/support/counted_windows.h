// Windows of documents whose every token says where it comes from.
#pragma once

#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/windows.h"

namespace cepe::test {

inline std::vector<text::Token> counting(text::Token first, size_t count) {
  std::vector<text::Token> ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

inline eval::PerplexityOptions small_windows() {
  eval::PerplexityOptions options;
  options.decoder_tokens = 10;
  options.target_tokens = 4;
  options.context_tokens = {0, 6, 20};
  options.samples = 3;
  options.seed = 5;
  return options;
}

// Documents "0", "1", ... of ids 1000 d .. 1000 d + length - 1: every id says where it comes from.
inline eval::WindowSet windows_of(const std::vector<size_t>& lengths, const eval::PerplexityOptions& options,
                                  std::optional<text::Token> beginning = {}) {
  eval::WindowSet set;
  for (size_t d = 0; d < lengths.size(); ++d)
    eval::draw_windows(std::to_string(d), counting(static_cast<text::Token>(1000 * d), lengths[d]), options, beginning,
                       set);
  return set;
}

inline std::vector<text::Token> joined(std::span<const context::Chunk> chunks) {
  std::vector<text::Token> ids;
  for (const context::Chunk& chunk : chunks) ids.insert(ids.end(), chunk.ids.begin(), chunk.ids.end());
  return ids;
}

}  // namespace cepe::test
