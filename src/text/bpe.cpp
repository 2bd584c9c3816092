#include "text/bpe.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <mutex>

#include "base/error.h"
#include "text/byte_tokens.h"
#include "text/utf8.h"

namespace cepe::text {
namespace {

constexpr size_t cache_slots = size_t{1} << 14;
constexpr size_t longest_cached_word = 30;  // bytes
constexpr size_t most_cached_tokens = 7;
constexpr size_t worth_cutting = 16;  // bytes
constexpr size_t most_pooled_workspaces = 64;

// One remembered word; a newer one with the same slot replaces it, so memory is bounded.
struct CachedWord {
  uint8_t size = 0;  // 0: empty slot
  uint8_t count = 0;
  std::array<char, longest_cached_word> word;
  std::array<Token, most_cached_tokens> tokens;
};

struct Symbol {
  Token id = Vocabulary::absent;  // absent: merged into its left neighbour
  int32_t previous = -1;
  int32_t next = -1;
};

struct Candidate {
  uint64_t order = 0;  // rank, then position: the smallest is merged first
  Token result = Vocabulary::absent;
  bool operator>(const Candidate& other) const { return order > other.order; }
};

}  // namespace

struct Bpe::Workspace {
  std::vector<CachedWord> cache = std::vector<CachedWord>(cache_slots);
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::string spelled;
};

// Workspaces wait here between calls, so that threads share no cache while they work.
class Bpe::WorkspacePool {
 public:
  std::unique_ptr<Workspace> take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<Workspace>();
    auto workspace = std::move(idle_.back());
    idle_.pop_back();
    return workspace;
  }
  void give(std::unique_ptr<Workspace> workspace) {
    const std::lock_guard lock(mutex_);
    if (idle_.size() < most_pooled_workspaces) idle_.push_back(std::move(workspace));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> idle_;
};

Bpe::Bpe(Vocabulary vocabulary, MergeTable merges, BpeSettings settings)
    : vocabulary_(std::move(vocabulary)),
      merges_(std::move(merges)),
      settings_(std::move(settings)),
      byte_tokens_(byte_tokens_of(vocabulary_)),
      workspaces_(std::make_unique<WorkspacePool>()) {
  cut_at_marker_ = can_cut_at_marker();
}

Bpe::~Bpe() = default;

bool Bpe::can_cut_at_marker() const {
  const bool whole_words =
      settings_.ignore_merges || !settings_.continuing_prefix.empty() || !settings_.end_suffix.empty();
  if (whole_words || vocabulary_.find(space_marker) == Vocabulary::absent) return false;
  bool none_spans = true;
  merges_.for_each([&](Token left, Token right, const Merge&) {
    if (vocabulary_.token(right).starts_with(space_marker) && !vocabulary_.token(left).ends_with(space_marker))
      none_spans = false;
  });
  return none_spans;
}

void Bpe::tokenize(const Pieces& pieces, std::vector<Token>& out) const {
  auto workspace = workspaces_->take();
  for (const Piece& piece : pieces.list) tokenize_piece(pieces.view(piece), *workspace, out);
  workspaces_->give(std::move(workspace));
}

void Bpe::tokenize_piece(std::string_view piece, Workspace& workspace, std::vector<Token>& out) const {
  if (!cut_at_marker_ || piece.size() <= worth_cutting) return tokenize_word(piece, workspace, out);
  size_t begin = 0;
  for (size_t at = piece.find(space_marker, 1); at != std::string_view::npos;
       at = piece.find(space_marker, at + space_marker.size())) {
    const bool after_marker =
        at >= space_marker.size() && piece.substr(at - space_marker.size(), space_marker.size()) == space_marker;
    if (after_marker) continue;
    tokenize_word(piece.substr(begin, at - begin), workspace, out);
    begin = at;
  }
  tokenize_word(piece.substr(begin), workspace, out);
}

void Bpe::tokenize_word(std::string_view word, Workspace& workspace, std::vector<Token>& out) const {
  if (word.empty()) return;
  if (settings_.ignore_merges) {
    const Token id = vocabulary_.find(word);
    if (id != Vocabulary::absent && !settings_.special.contains(id)) return out.push_back(id);
  }
  CachedWord* slot = nullptr;
  if (word.size() <= longest_cached_word) {
    slot = &workspace.cache[std::hash<std::string_view>{}(word) % cache_slots];
    if (slot->size == word.size() && std::memcmp(slot->word.data(), word.data(), word.size()) == 0) {
      out.insert(out.end(), slot->tokens.begin(), slot->tokens.begin() + slot->count);
      return;
    }
  }
  const size_t before = out.size();
  split_into_symbols(word, workspace);
  merge_symbols(workspace);
  for (const Symbol& symbol : workspace.symbols) {
    if (symbol.id != Vocabulary::absent) out.push_back(symbol.id);
  }
  const size_t count = out.size() - before;
  if (slot && count <= most_cached_tokens) {
    slot->size = static_cast<uint8_t>(word.size());
    slot->count = static_cast<uint8_t>(count);
    std::copy(word.begin(), word.end(), slot->word.begin());
    std::copy(out.begin() + static_cast<std::ptrdiff_t>(before), out.end(), slot->tokens.begin());
  }
}

void Bpe::split_into_symbols(std::string_view word, Workspace& workspace) const {
  auto& symbols = workspace.symbols;
  symbols.clear();
  const bool plain = settings_.continuing_prefix.empty() && settings_.end_suffix.empty();
  bool unknown_waits = false;
  const auto flush_unknown = [&] {
    if (unknown_waits) symbols.push_back({settings_.unknown});
    unknown_waits = false;
  };
  for (size_t at = 0; at < word.size();) {
    const size_t size = character_at(word, at).size;
    std::string_view character = word.substr(at, size);
    if (!plain) {
      workspace.spelled = at == 0 ? "" : settings_.continuing_prefix;
      workspace.spelled += character;
      if (at + size == word.size()) workspace.spelled += settings_.end_suffix;
      character = workspace.spelled;
    }
    at += size;
    if (const Token id = vocabulary_.find(character); id != Vocabulary::absent) {
      flush_unknown();
      symbols.push_back({id});
    } else if (!settings_.byte_fallback || !append_bytes(character, workspace)) {
      if (settings_.unknown == Vocabulary::absent) continue;
      if (!settings_.fuse_unknown) flush_unknown();
      unknown_waits = true;
    }
  }
  flush_unknown();
  for (size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = static_cast<int32_t>(i) - 1;
    symbols[i].next = i + 1 < symbols.size() ? static_cast<int32_t>(i) + 1 : -1;
  }
}

bool Bpe::append_bytes(std::string_view character, Workspace& workspace) const {
  const auto missing = [&](char byte) { return byte_tokens_[static_cast<uint8_t>(byte)] == Vocabulary::absent; };
  if (std::any_of(character.begin(), character.end(), missing)) return false;
  for (const char byte : character) workspace.symbols.push_back({byte_tokens_[static_cast<uint8_t>(byte)]});
  return true;
}

void Bpe::merge_symbols(Workspace& workspace) const {
  auto& symbols = workspace.symbols;
  auto& heap = workspace.heap;
  heap.clear();
  const auto consider = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return false;
    const Merge* merge = merges_.find(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    if (merge) heap.push_back({static_cast<uint64_t>(merge->rank) << 32 | static_cast<uint32_t>(left), merge->result});
    return merge != nullptr;
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) consider(static_cast<int32_t>(i), static_cast<int32_t>(i) + 1);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    const Candidate best = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const auto at = static_cast<int32_t>(static_cast<uint32_t>(best.order));
    Symbol& left = symbols[static_cast<size_t>(at)];
    if (left.id == Vocabulary::absent || left.next < 0) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    const Merge* merge = merges_.find(left.id, right.id);  // either may have changed since
    if (!merge || merge->result != best.result) continue;
    left.id = best.result;
    right.id = Vocabulary::absent;
    left.next = right.next;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = at;
    if (consider(left.previous, at)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
    if (consider(at, left.next)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  }
}

}  // namespace cepe::text
