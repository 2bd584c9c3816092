#include "text/wordpiece.h"

#include <algorithm>

namespace cepe::text {
namespace {

bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

int64_t characters_of(std::string_view word) {
  return std::count_if(word.begin(), word.end(), [](char byte) { return !continues_character(byte); });
}

}  // namespace

WordPiece::WordPiece(Vocabulary vocabulary, WordPieceSettings settings)
    : vocabulary_(std::move(vocabulary)), settings_(std::move(settings)) {}

void WordPiece::tokenize(const Pieces& pieces, std::vector<Token>& out) const {
  std::string spelled;
  for (const Piece& piece : pieces.list) {
    const std::string_view word = pieces.view(piece);
    const size_t before = out.size();
    if (characters_of(word) <= settings_.longest_word && append_word(word, spelled, out)) continue;
    out.resize(before);
    out.push_back(settings_.unknown);
  }
}

bool WordPiece::append_word(std::string_view word, std::string& spelled, std::vector<Token>& out) const {
  for (size_t begin = 0; begin < word.size();) {
    spelled = begin == 0 ? "" : settings_.continuing_prefix;
    const size_t prefix = spelled.size();
    if (vocabulary_.longest() <= prefix) return false;
    spelled += word.substr(begin, vocabulary_.longest() - prefix);  // nothing longer can match
    const bool cut = begin + (spelled.size() - prefix) < word.size();
    size_t end = spelled.size();
    if (cut) {
      while (end > prefix && continues_character(word[begin + (end - prefix)])) --end;
    }
    Token found = Vocabulary::absent;
    while (end > prefix) {
      found = vocabulary_.find(std::string_view(spelled).substr(0, end));
      if (settings_.special.contains(found)) found = Vocabulary::absent;
      if (found != Vocabulary::absent) break;
      do --end;
      while (end > prefix && continues_character(spelled[end]));
    }
    if (found == Vocabulary::absent) return false;
    out.push_back(found);
    begin += end - prefix;
  }
  return true;
}

}  // namespace cepe::text
