// BERT's vocab.txt: one token a line.
#pragma once

#include <memory>
#include <string_view>

#include "text/pipeline.h"
#include "text/tokenizer_config.h"

namespace cepe::text {

// `lines` is the file's content, `where` names it. As Hugging Face's BertTokenizer: [CLS] text [SEP].
// Errors: corrupt (a token that BERT needs is missing), naming `where`.
std::unique_ptr<PipelineTokenizer> tokenizer_from_vocabulary(std::string_view lines, const TokenizerConfig& config,
                                                             const std::string& where);

}  // namespace cepe::text
