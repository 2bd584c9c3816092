#include "text/pipeline.h"

#include <algorithm>

#include "base/error.h"
#include "text/utf8.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;

class PipelineDetokenizer final : public Detokenizer {
 public:
  PipelineDetokenizer(const PipelineTokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), stream_(tokenizer.decoder()), skip_special_(skip_special) {}
  void put(Token id, std::string& out) override {
    const std::string_view text = tokenizer_.text_of(id);
    if (!skip_special_ || !tokenizer_.is_special(id)) stream_.put(text, out);
  }
  void finish(std::string& out) override { stream_.finish(out); }

 private:
  const PipelineTokenizer& tokenizer_;
  DecodeStream stream_;
  bool skip_special_;
};

}  // namespace

PipelineTokenizer::PipelineTokenizer(PipelineParts parts) : parts_(std::move(parts)) {
  size_ = parts_.model->vocabulary().size();
  for (const AddedToken& token : parts_.added.tokens()) size_ = std::max<int64_t>(size_, int64_t{token.id} + 1);
}

std::vector<Token> PipelineTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (!options.literal_mask.empty() && options.literal_mask.size() != text.size()) {
    throw Error(ErrorCode::invalid_argument, "literal_mask has " + std::to_string(options.literal_mask.size()) +
                                                 " bytes for a text of " + std::to_string(text.size()));
  }
  EncodeOptions checked = options;
  std::string mended, mask(options.literal_mask);
  if (!is_utf8(text)) {
    mended = mask.empty() ? replace_invalid(text) : replace_invalid(text, mask);
    text = mended;
    checked.literal_mask = mask;
  }
  std::vector<Token> ids;
  if (options.add_special) ids = parts_.post_processor.before;
  for (const Segment& segment : parts_.added.split_raw(text, checked)) {
    if (segment.id != Vocabulary::absent) {
      ids.push_back(segment.id);
    } else {
      encode_raw(text.substr(segment.begin, segment.end - segment.begin), segment.begin == 0, checked, ids);
    }
  }
  if (options.add_special) {
    const auto& after = parts_.post_processor.after;
    ids.insert(ids.end(), after.begin(), after.end());
  }
  return ids;
}

void PipelineTokenizer::encode_raw(std::string_view text, bool at_start, const EncodeOptions& options,
                                   std::vector<Token>& ids) const {
  std::string normalized;
  if (!parts_.normalizer.empty()) {
    normalized = parts_.normalizer.apply(text);
    text = normalized;
  }
  for (const Segment& segment : parts_.added.split_normalized(text, options)) {
    if (segment.id != Vocabulary::absent) {
      ids.push_back(segment.id);
    } else {
      encode_normalized(text.substr(segment.begin, segment.end - segment.begin), at_start && segment.begin == 0, ids);
    }
  }
}

void PipelineTokenizer::encode_normalized(std::string_view text, bool at_start, std::vector<Token>& ids) const {
  if (text.size() > INT32_MAX / 4) {
    throw Error(ErrorCode::unsupported, "a text of " + std::to_string(text.size()) + " bytes in one piece; at most " +
                                            std::to_string(INT32_MAX / 4) + " are supported");
  }
  Pieces pieces{std::string(text), {{0, text.size(), at_start}}};
  parts_.pre_tokenizer.apply(pieces);
  parts_.model->tokenize(pieces, ids);
}

std::unique_ptr<Detokenizer> PipelineTokenizer::detokenizer(bool skip_special) const {
  return std::make_unique<PipelineDetokenizer>(*this, skip_special);
}

bool PipelineTokenizer::has(Token id) const {
  return id >= 0 && (parts_.added.find(id) || parts_.model->vocabulary().contains(id));
}

std::string_view PipelineTokenizer::text_of(Token id) const {
  if (const AddedToken* token = parts_.added.find(id)) return token->content;
  if (parts_.model->vocabulary().contains(id)) return parts_.model->vocabulary().token(id);
  throw Error(ErrorCode::invalid_argument,
              "token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(size_) + " tokens");
}

std::optional<Token> PipelineTokenizer::id_of(std::string_view token) const {
  if (const AddedToken* added = parts_.added.find(token)) return added->id;
  const Token id = parts_.model->vocabulary().find(token);
  return id == Vocabulary::absent ? std::nullopt : std::optional<Token>(id);
}

std::string PipelineTokenizer::token_of(Token id) const { return std::string(text_of(id)); }

bool PipelineTokenizer::is_special(Token id) const {
  const AddedToken* token = parts_.added.find(id);
  return token && token->special;
}

void PipelineTokenizer::set_post_processor(PostProcessor post_processor) {
  parts_.post_processor = std::move(post_processor);
}

}  // namespace cepe::text
