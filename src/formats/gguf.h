// GGUF versions 2 and 3, little-endian: metadata, tensor descriptions, aligned data.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "formats/content.h"

namespace cepe::formats {

// `where` names the file in messages. Shapes come out reversed (PyTorch's order). Metadata is one flat object with the
// file's keys; string values are the file's bytes, which need not be UTF-8 (names and keys must be).
// Errors: corrupt; unsupported for version 1, big-endian files and types that DType lacks. Each names key or tensor.
ParsedFile parse_gguf(std::span<const std::byte> file, const std::string& where);

}  // namespace cepe::formats
