#include "text/decoder.h"

#include <algorithm>
#include <array>

#include "text/byte_level.h"
#include "text/byte_tokens.h"
#include "text/utf8.h"

namespace cepe::text {

// One rule at work. Tokens arrive as chunks: `begins` marks the first chunk of a token, `ends` the last.
class DecodeStream::Stage {
 public:
  virtual ~Stage() = default;
  virtual void put(std::string_view chunk, bool begins, bool ends) = 0;
  virtual void finish() { next->finish(); }
  Stage* next = nullptr;
};

namespace {

using Stage = DecodeStream::Stage;

constexpr size_t most_grown = size_t{1} << 20;  // bytes of a token that rules make longer
constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

// A stage that looks at whole tokens.
class TokenStage : public Stage {
 public:
  void put(std::string_view chunk, bool begins, bool ends) final {
    if (begins && ends) return token(chunk);
    if (begins) gathered_.clear();
    gathered_ += chunk;
    if (ends) token(gathered_);
  }
  virtual void token(std::string_view text) = 0;

 private:
  std::string gathered_;
};

class ByteLevelStage final : public TokenStage {
 public:
  void token(std::string_view text) override {
    waiting_ += bytes_of_characters(text);
    const size_t whole = complete_prefix(waiting_);
    if (whole == 0) return;
    next->put(replace_invalid(std::string_view(waiting_).substr(0, whole)), !begun_, false);
    begun_ = true;
    waiting_.erase(0, whole);
  }
  void finish() override {
    next->put(replace_invalid(waiting_), !begun_, true);
    next->finish();
  }

 private:
  std::string waiting_;  // an unfinished character
  bool begun_ = false;
};

class ByteFallbackStage final : public TokenStage {
 public:
  void token(std::string_view text) override {
    if (const auto byte = byte_of_token(text)) {
      waiting_ += static_cast<char>(*byte);
      return;
    }
    flush();
    next->put(text, true, true);
  }
  void finish() override {
    flush();
    next->finish();
  }

 private:
  // A run that is no UTF-8 as a whole becomes one U+FFFD a byte.
  void flush() {
    if (!waiting_.empty() && is_utf8(waiting_)) {
      next->put(waiting_, true, true);
    } else {
      for (size_t i = 0; i < waiting_.size(); ++i) next->put(replacement_character, true, true);
    }
    waiting_.clear();
  }
  std::string waiting_;
};

class FuseStage final : public Stage {
 public:
  void put(std::string_view chunk, bool, bool) override {
    next->put(chunk, !begun_, false);
    begun_ = true;
  }
  void finish() override {
    next->put("", !begun_, true);
    next->finish();
  }

 private:
  bool begun_ = false;
};

class ReplaceStage final : public TokenStage {
 public:
  explicit ReplaceStage(const ReplaceDecoding& rule) : rule_(rule) {}
  void token(std::string_view text) override {
    next->put(replace_all(text, rule_.pattern, rule_.content, std::max(text.size(), most_grown)), true, true);
  }

 private:
  const ReplaceDecoding& rule_;
};

class StripStage final : public Stage {
 public:
  explicit StripStage(const StripDecoding& rule) : rule_(rule) {}
  void put(std::string_view chunk, bool begins, bool ends) override {
    if (begins) to_strip_ = rule_.start;
    while (to_strip_ > 0 && !chunk.empty()) {
      if (!chunk.starts_with(rule_.character)) to_strip_ = 0;
      if (to_strip_ == 0) break;
      chunk.remove_prefix(rule_.character.size());
      --to_strip_;
    }
    // What may turn out to be the end is held back.
    if (begins) held_ = 0;
    std::string text;
    for (size_t i = 0; i < held_; ++i) text += rule_.character;
    text += chunk;
    held_ = 0;
    size_t end = text.size();
    while (held_ < rule_.stop && std::string_view(text).substr(0, end).ends_with(rule_.character)) {
      end -= rule_.character.size();
      ++held_;
    }
    text.resize(end);
    next->put(text, begins, ends);
  }

 private:
  const StripDecoding& rule_;
  size_t to_strip_ = 0;
  size_t held_ = 0;  // characters
};

class MetaspaceStage final : public Stage {
 public:
  explicit MetaspaceStage(const MetaspaceDecoding& rule) : rule_(rule) {}
  void put(std::string_view chunk, bool begins, bool ends) override {
    const std::string_view space = first_ && rule_.strip_first ? "" : " ";
    const std::string& mark = rule_.replacement;
    std::string text;
    size_t done = 0;
    for (size_t at = chunk.find(mark); at != std::string_view::npos; at = chunk.find(mark, done)) {
      (text += chunk.substr(done, at - done)) += space;
      done = at + mark.size();
    }
    text += chunk.substr(done);
    if (ends) first_ = false;
    next->put(text, begins, ends);
  }

 private:
  const MetaspaceDecoding& rule_;
  bool first_ = true;
};

std::string without_spaces_that_english_lacks(std::string text) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 11> rules{{{" .", "."},
                                                                                        {" ?", "?"},
                                                                                        {" !", "!"},
                                                                                        {" ,", ","},
                                                                                        {" ' ", "'"},
                                                                                        {" n't", "n't"},
                                                                                        {" 'm", "'m"},
                                                                                        {" do not", " don't"},
                                                                                        {" 's", "'s"},
                                                                                        {" 've", "'ve"},
                                                                                        {" 're", "'re"}}};
  for (const auto& [from, to] : rules) {
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
      text.replace(at, from.size(), to);
    }
  }
  return text;
}

class WordPieceStage final : public TokenStage {
 public:
  explicit WordPieceStage(const WordPieceDecoding& rule) : rule_(rule) {}
  void token(std::string_view text) override {
    std::string out(text);
    if (!first_) {
      if (text.starts_with(rule_.prefix)) {
        out.erase(0, rule_.prefix.size());
      } else {
        out.insert(0, " ");
      }
    }
    first_ = false;
    next->put(rule_.cleanup ? without_spaces_that_english_lacks(std::move(out)) : out, true, true);
  }

 private:
  const WordPieceDecoding& rule_;
  bool first_ = true;
};

class JoinStage final : public Stage {
 public:
  void put(std::string_view chunk, bool begins, bool ends) override {
    if (begins && !first_) next->put(" ", true, true);
    first_ = false;
    next->put(chunk, begins, ends);
  }

 private:
  bool first_ = true;
};

class CollectStage final : public Stage {
 public:
  void put(std::string_view chunk, bool, bool) override { text += chunk; }
  void finish() override {}
  std::string text;
};

struct MakeStage {
  std::unique_ptr<Stage> operator()(const ByteLevelDecoding&) const { return std::make_unique<ByteLevelStage>(); }
  std::unique_ptr<Stage> operator()(const ByteFallbackDecoding&) const { return std::make_unique<ByteFallbackStage>(); }
  std::unique_ptr<Stage> operator()(const FuseDecoding&) const { return std::make_unique<FuseStage>(); }
  std::unique_ptr<Stage> operator()(const ReplaceDecoding& rule) const { return std::make_unique<ReplaceStage>(rule); }
  std::unique_ptr<Stage> operator()(const StripDecoding& rule) const { return std::make_unique<StripStage>(rule); }
  std::unique_ptr<Stage> operator()(const MetaspaceDecoding& rule) const {
    return std::make_unique<MetaspaceStage>(rule);
  }
  std::unique_ptr<Stage> operator()(const WordPieceDecoding& rule) const {
    return std::make_unique<WordPieceStage>(rule);
  }
  std::unique_ptr<Stage> operator()(const JoinDecoding&) const { return std::make_unique<JoinStage>(); }
};

void take(std::string& from, std::string& to) {
  to += from;
  from.clear();
}

}  // namespace

DecodeStream::DecodeStream(const Decoder& decoder) {
  for (const auto& rule : decoder.rules) stages_.push_back(std::visit(MakeStage{}, rule));
  stages_.push_back(std::make_unique<CollectStage>());
  for (size_t i = 0; i + 1 < stages_.size(); ++i) stages_[i]->next = stages_[i + 1].get();
}

DecodeStream::~DecodeStream() = default;

void DecodeStream::put(std::string_view token, std::string& out) {
  stages_.front()->put(token, true, true);
  take(static_cast<CollectStage&>(*stages_.back()).text, out);
}

void DecodeStream::finish(std::string& out) {
  stages_.front()->finish();
  take(static_cast<CollectStage&>(*stages_.back()).text, out);
}

}  // namespace cepe::text
