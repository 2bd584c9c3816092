#include "text/pre_tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/expressions.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;

void check_growth(size_t before, size_t after) {
  if (after > growth_limit(before)) {
    throw Error(ErrorCode::unsupported,
                "splitting makes a text of " + std::to_string(before) + " bytes unreasonably long");
  }
}

// Rewrites the text piece by piece: rewrite(view, piece, out) appends the piece's new text.
template <class Rewrite>
void rewrite_pieces(Pieces& pieces, Rewrite&& rewrite) {
  std::string out;
  out.reserve(pieces.text.size() + pieces.text.size() / 2);
  for (Piece& piece : pieces.list) {
    const size_t begin = out.size();
    rewrite(pieces.view(piece), piece, out);
    piece.begin = begin;
    piece.end = out.size();
  }
  check_growth(pieces.text.size(), out.size());
  pieces.text = std::move(out);
}

// Cuts each piece: spans_of(view, spans) lists delimiters and what lies between.
template <class SpansOf>
void cut_pieces(Pieces& pieces, SplitBehavior behavior, SpansOf&& spans_of) {
  std::vector<Piece> list;
  list.reserve(pieces.list.size());
  std::vector<Span> spans;
  for (const Piece& piece : pieces.list) {
    spans.clear();
    spans_of(pieces.view(piece), spans);
    join_spans(spans, behavior);
    for (const auto& [range, delimiter] : spans) {
      if (range.begin == range.end) continue;
      list.push_back({piece.begin + range.begin, piece.begin + range.end, piece.at_start && range.begin == 0});
    }
  }
  pieces.list = std::move(list);
}

// Matches and the gaps between them, in order.
void append_spans(std::string_view text, const std::vector<Range>& matches, bool invert, std::vector<Span>& spans) {
  size_t done = 0;
  for (const Range& match : matches) {
    if (match.begin != done) spans.push_back({{done, match.begin}, invert});
    spans.push_back({match, !invert});
    done = match.end;
  }
  if (done != text.size()) spans.push_back({{done, text.size()}, invert});
}

bool in_class(char32_t code, CharacterClass kind) {
  switch (kind) {
    case CharacterClass::whitespace:
      return is_whitespace(code);
    case CharacterClass::punctuation:
      return is_punctuation(code);
    case CharacterClass::numeric:
      return is_numeric(code);
  }
  return false;
}

struct ApplyStep {
  Pieces& pieces;

  void operator()(const PatternSplit& split) const {
    Matcher matcher(split.pattern);
    std::vector<Range> matches;
    cut_pieces(pieces, split.behavior, [&](std::string_view text, std::vector<Span>& spans) {
      matcher.find_all(text, matches);
      append_spans(text, matches, split.invert, spans);
    });
  }

  void operator()(const ClassSplit& split) const {
    cut_pieces(pieces, split.behavior, [&](std::string_view text, std::vector<Span>& spans) {
      size_t done = 0;
      for (size_t at = 0; at < text.size();) {
        const Character character = character_at(text, at);
        if (in_class(character.code, split.kind)) {
          if (done != at) spans.push_back({{done, at}, false});
          done = at + character.size;
          spans.push_back({{at, done}, true});
        }
        at += character.size;
      }
      if (done != text.size()) spans.push_back({{done, text.size()}, false});
    });
  }

  void operator()(const PrefixSpace&) const {
    rewrite_pieces(pieces, [](std::string_view text, const Piece&, std::string& out) {
      if (!text.empty() && text.front() != ' ') out += ' ';
      out += text;
    });
  }

  void operator()(const ByteLevelMap&) const {
    rewrite_pieces(pieces,
                   [](std::string_view text, const Piece&, std::string& out) { append_byte_characters(out, text); });
  }

  void operator()(const MetaspaceSplit& metaspace) const {
    const std::string& mark = metaspace.replacement;
    rewrite_pieces(pieces, [&](std::string_view text, const Piece& piece, std::string& out) {
      const bool wanted =
          metaspace.prepend == PrependScheme::always || (metaspace.prepend == PrependScheme::first && piece.at_start);
      if (wanted && !text.empty() && text.front() != ' ' && !text.starts_with(mark)) out += mark;
      for (const char byte : text) byte == ' ' ? out += mark : out += byte;
    });
    if (metaspace.split) (*this)(PatternSplit{Pattern::literal(mark), SplitBehavior::merged_with_next, false});
  }
};

}  // namespace

void join_spans(std::vector<Span>& spans, SplitBehavior behavior) {
  if (behavior == SplitBehavior::isolated) return;
  if (behavior == SplitBehavior::removed) {
    std::erase_if(spans, [](const Span& span) { return span.second; });
    return;
  }
  const bool backwards = behavior == SplitBehavior::merged_with_next;
  if (backwards) std::reverse(spans.begin(), spans.end());
  bool previous = false;
  size_t kept = 0;
  for (const Span& span : spans) {
    const bool join = behavior == SplitBehavior::contiguous ? span.second == previous : span.second && !previous;
    previous = span.second;
    if (join && kept > 0) {
      Range& last = spans[kept - 1].first;
      (backwards ? last.begin : last.end) = backwards ? span.first.begin : span.first.end;
    } else {
      spans[kept++] = span;
    }
  }
  spans.resize(kept);
  if (backwards) std::reverse(spans.begin(), spans.end());
}

void append_byte_level(std::vector<PreTokenizerStep>& steps, bool add_prefix_space, bool use_expression) {
  if (add_prefix_space) steps.emplace_back(PrefixSpace{});
  if (use_expression) {
    static const Pattern expression = Pattern::regex(gpt2_expression, "GPT-2's expression");
    steps.emplace_back(PatternSplit{expression, SplitBehavior::isolated, false});
  }
  steps.emplace_back(ByteLevelMap{});
}

void PreTokenizer::apply(Pieces& pieces) const {
  const size_t before = pieces.text.size();
  for (const auto& step : steps) {
    std::visit(ApplyStep{pieces}, step);
    check_growth(before, pieces.text.size());
  }
}

}  // namespace cepe::text
