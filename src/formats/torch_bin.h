// PyTorch's .bin / .pt / .pth: a zip file with a pickle that names tensors over storages, one zip entry a storage.
// Read as data: nothing in the pickle is executed.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "formats/content.h"

namespace cepe::formats {

// `where` names the file in messages. The tensors of the pickled mapping, or of the mapping in its field "state_dict"
// or "model" where the outer one holds no tensor; values that are no tensors are skipped. Contiguous tensors in stored
// entries are views into `file`; compressed and strided ones are held.
// Errors: corrupt; unsupported for the format before PyTorch 1.6 (no zip), foreign classes, big-endian files,
// encrypted entries and element types that DType lacks. Each names the entry or tensor.
ParsedFile parse_torch_bin(std::span<const std::byte> file, const std::string& where);

}  // namespace cepe::formats
