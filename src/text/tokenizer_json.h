// Hugging Face's tokenizer.json.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "text/pipeline.h"
#include "text/tokenizer_config.h"

namespace cepe::text {

// `text` is the file's content, `where` names it. Errors: corrupt, unsupported; each names `where` and the field.
std::unique_ptr<PipelineTokenizer> tokenizer_from_json(std::string_view text, const std::string& where);

// bos, eos, ..., the chat template, and what add_bos_token and add_eos_token change.
void apply_config(PipelineTokenizer& tokenizer, const TokenizerConfig& config);

}  // namespace cepe::text
