// What a model holds and what memory it will take, told from its files without reading its weights.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "model/adapter.h"
#include "model/load.h"

namespace cepe::cli {

enum class Part { embedding, attention, feed_forward, norms, output, encoder, cross_attention, other };
std::string_view name_of(Part part);
// By its name: canonical (Llama's), GPT-2's, NeoX's and GGUF's names are known.
Part part_of(std::string_view tensor_name);

struct PartSize {
  int64_t parameters = 0;
  int64_t stored_bytes = 0;  // in the file
  int64_t kept_bytes = 0;    // in memory, as options say
};

struct ModelSize {
  std::map<Part, PartSize> parts;
  std::map<std::string, int64_t> types;  // weight type -> bytes in the file
  PartSize total;
};

// Adds all tensors of a file, as they will be kept on a CPU or a GPU. Scales of packed rows ("weight_scale") count as
// bytes, not as parameters. `but_adapter`: without encoder and cross-attention, as of a published CEPE folder whose own
// are not used.
void add(ModelSize& size, const formats::Checkpoint& checkpoint, model::WeightType type, bool on_cpu = true,
         bool but_adapter = false);

// Memory that grows with the context, in bytes; full attention is what the same decoder would need to read the context
// itself.
struct ContextMemory {
  int64_t tokens = 0;
  int64_t states = 0;          // encoder output, once for all layers
  int64_t kept = 0;            // K and V of the cross-attention layers, where they are kept
  int64_t full_attention = 0;  // K and V of all decoder layers
};
// encoder_width 0: no adapter, states and kept are 0. bytes_per_value = 2 for bfloat16; kept_in_8_bits: K and V of the
// cross-attention are (ops/int8_context.h), as on a CPU.
ContextMemory context_memory(const model::DecoderConfig& decoder, int64_t encoder_width, int64_t cross_attention_layers,
                             int64_t tokens, int64_t bytes_per_value, bool kept_in_8_bits);

}  // namespace cepe::cli
