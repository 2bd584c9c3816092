// Models from one layout into another: published CEPE folder <-> decoder folder + adapter folder, GGUF or PyTorch .bin
// -> safetensors folder. Tensors are copied byte for byte by name; only GGUF's blocks are dequantised and its row
// orders undone.
#pragma once

#include "base/files.h"
#include "model/load.h"

namespace cepe::model {

// A published CEPE folder, apart. The adapter folder keeps what its config.json says beyond the decoder, so that
// joining gives the same again. Folders must exist. Errors: invalid_argument where `source` is no CEPE folder.
void split_cepe_folder(const ModelSource& source, const base::Path& decoder_folder, const base::Path& adapter_folder);

// A decoder folder and its adapter folder, as one published CEPE folder. Errors: mismatch (the adapter is another
// decoder's), unsupported (GGUF decoders, cross-attention that is not in the last layers, 8-bit adapters).
void join_cepe_folder(const ModelSource& decoder, const base::Path& adapter_folder, const base::Path& output);

// Any decoder as a Hugging Face folder in safetensors. GGUF's blocks become `block_type` (float32 or bfloat16); all
// other tensors stay as they are. Errors: unsupported for GGUF files whose rope factors no config.json can state.
void convert_to_safetensors(const ModelSource& source, const base::Path& output, formats::DType block_type);

// Tokenizer files (tokenizer.json, tokenizer.model, ...) of one model folder beside another's weights. Returns how
// many.
int64_t copy_tokenizer_files(const base::Path& from, const base::Path& to);

}  // namespace cepe::model
