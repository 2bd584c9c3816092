// SentencePiece's tokenizer.model, by its own library.
#pragma once

#include <memory>
#include <string_view>

#include "text/pipeline.h"
#include "text/tokenizer_config.h"

namespace cepe::text {

// `bytes` is the file's content, `where` names it. As Hugging Face's Llama tokenizer: BOS in front unless the
// configuration says no, control pieces are special tokens, each text between special tokens is encoded by itself.
// Errors: corrupt, naming `where`.
std::unique_ptr<PipelineTokenizer> tokenizer_from_sentencepiece(std::string_view bytes, const TokenizerConfig& config,
                                                                const std::string& where);

}  // namespace cepe::text
