// A text and the ranges of it that a model turns into tokens one by one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace cepe::text {

struct Piece {
  size_t begin = 0;
  size_t end = 0;
  bool at_start = false;  // begins where the caller's text begins
};

struct Pieces {
  std::string text;
  std::vector<Piece> list;  // in order, none overlapping

  std::string_view view(const Piece& piece) const {
    return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }
};

// What any rewriting of a text of this size may grow to: rules come from files of strangers.
inline size_t growth_limit(size_t size) { return 64 * size + (size_t{1} << 20); }

}  // namespace cepe::text
