// config.json and GGUF metadata from strangers: read, or refused with an error.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "model/config.h"
#include "model/gguf_config.h"
#include "model/weight_names.h"

namespace {

using cepe::base::Json;

template <class Read>
void attempt(const Read& read) {
  try {
    read();
  } catch (const cepe::base::Error&) {
  }
}

void read_decoder(const Json& config) {
  const cepe::model::DecoderConfig decoder = cepe::model::read_decoder_config(config, "fuzz");
  cepe::model::weight_names(decoder, {"embed_tokens.weight"});
  cepe::model::gguf_weight_names(decoder);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Json json;
  attempt([&] { json = cepe::base::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz"); });
  attempt([&] { read_decoder(json); });
  attempt([&] { read_decoder(cepe::model::gguf_to_config(json, "fuzz")); });
  attempt([&] { cepe::model::write_encoder_config(cepe::model::read_encoder_config(json, "fuzz")); });
  return 0;
}
