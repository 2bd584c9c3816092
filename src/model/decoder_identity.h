// What an adapter remembers of its decoder: architecture, sizes and a sketch of sampled weights. The sketch survives
// quantisation, so that GGUF and safetensors of one model both match and another model does not.
#pragma once

#include <string>

#include "base/json.h"
#include "model/decoder.h"

namespace cepe::model {

base::Json identity_of(const Decoder& decoder, const std::string& name);

// Throws mismatch, with both names and what differs, where `decoder` is not the one described. `where` names the
// adapter.
void check_identity(const base::Json& identity, const Decoder& decoder, const std::string& where);

}  // namespace cepe::model
