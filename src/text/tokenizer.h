// Text <-> token ids. One interface, implemented by byte-level BPE, SentencePiece-like BPE, SentencePiece and
// WordPiece.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "formats/checkpoint.h"

namespace cepe::text {

using Token = int32_t;

struct EncodeOptions {
  // Adds what the model's post-processor adds (BOS, [CLS] ... [SEP], ...).
  bool add_special = false;
  // Whether special tokens spelled out in the text ("<|im_end|>") become real ones. Off for documents and prompts.
  bool parse_special = false;
  // One byte per byte of the text, non-zero where it came from a user: there no special token is recognised even with
  // parse_special. Empty: nothing is masked. (chat_template.h makes it.)
  std::string_view literal_mask = {};
};

// Ids that arrive one by one, turned into text: appends what is certain, whole characters only; the rest waits.
class Detokenizer {
 public:
  virtual ~Detokenizer() = default;
  virtual void put(Token id, std::string& out) = 0;  // Errors: invalid_argument for ids outside the vocabulary
  virtual void finish(std::string& out) = 0;         // an incomplete character becomes U+FFFD
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of UTF-8 text. Bytes that are no UTF-8 are replaced by U+FFFD first, as Python does with errors="replace".
  virtual std::vector<Token> encode(std::string_view text, const EncodeOptions& options = {}) const = 0;
  // Text of ids; ids outside the vocabulary are an error (invalid_argument).
  std::string decode(std::span<const Token> ids, bool skip_special = true) const;
  // What decode puts all ids through. The tokenizer must outlive it.
  virtual std::unique_ptr<Detokenizer> detokenizer(bool skip_special = true) const = 0;

  virtual int64_t vocabulary_size() const = 0;  // largest id + 1
  // Models have ids beyond it where their embedding was rounded up.
  virtual bool has(Token id) const { return id >= 0 && id < vocabulary_size(); }
  virtual std::optional<Token> id_of(std::string_view token) const = 0;  // exact vocabulary or added token
  virtual std::string token_of(Token id) const = 0;                      // as in the vocabulary, for people
  virtual bool is_special(Token id) const = 0;

  // From the tokenizer's configuration; empty where the model has none.
  std::optional<Token> bos, eos, pad, unknown;
  bool adds_bos = false;      // whether add_special puts BOS in front
  std::string chat_template;  // Jinja source, empty where there is none
};

// From a folder (tokenizer.json + tokenizer_config.json [+ chat_template.jinja], or tokenizer.model, or vocab.txt), or
// from such a file. Errors: not_found (says which files were looked for), corrupt, unsupported (names the construct).
std::unique_ptr<Tokenizer> load_tokenizer(const base::Path& path);
// From GGUF metadata (tokenizer.ggml.*). `pre` = smollm, llama-bpe, qwen2, gpt-2, default; `model` = gpt2 or llama.
std::unique_ptr<Tokenizer> load_gguf_tokenizer(const formats::Checkpoint& checkpoint);

// Turns ids that arrive one by one into text, never emitting half a character: what is incomplete waits for the next
// id. All parts together equal Tokenizer::decode; ids without a token, which a model may choose, are no text.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true);
  std::string put(Token id);  // the text that is now certain, maybe empty
  std::string finish();       // what was held back (an incomplete character becomes U+FFFD)

 private:
  const Tokenizer* tokenizer_;
  std::unique_ptr<Detokenizer> detokenizer_;
};

}  // namespace cepe::text
