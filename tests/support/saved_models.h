// A model of random weights as a user has it: a decoder's folder and an adapter's.
#pragma once

#include "model/adapter.h"
#include "model/cepe_model.h"
#include "model/save.h"
#include "temporary_folder.h"

namespace cepe::test {

// As folder / "decoder" and folder / "adapter".
inline void save_parts(const TemporaryFolder& folder, const model::CepeModel& model) {
  const model::DecoderConfig& config = model.decoder.config;
  const base::Json written = {{"model_type", "llama"},
                              {"vocab_size", config.vocabulary},
                              {"hidden_size", config.width},
                              {"num_hidden_layers", config.layers},
                              {"num_attention_heads", config.heads},
                              {"num_key_value_heads", config.groups},
                              {"head_dim", config.head_width},
                              {"intermediate_size", config.feed_forward},
                              {"rms_norm_eps", config.norm_eps},
                              {"max_position_embeddings", config.max_positions},
                              {"tie_word_embeddings", false}};
  model::save_decoder(folder / "decoder", model.decoder, written);
  model::save_adapter(folder / "adapter", *model.adapter, model.decoder, {});
}

}  // namespace cepe::test
