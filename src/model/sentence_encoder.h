// The sentence encoder that finds passages: BERT (arXiv 1810.04805) with the mean over tokens as its embedding
// (Sentence-BERT, arXiv 1908.10084). MiniLM-L6 is the one that scripts/fetch-models gets; Contriever is the
// same architecture. Of the library: no command of the program finds passages.
#pragma once

#include <vector>

#include "base/files.h"
#include "model/feed_forward.h"
#include "model/linear.h"
#include "model/norm.h"
#include "model/weight_reader.h"

namespace cepe::model {

struct SentenceEncoderConfig {
  int64_t vocabulary = 0, width = 0, layers = 0, heads = 0, feed_forward = 0, max_positions = 0, token_types = 0;
  double norm_eps = 1e-12;
  ops::Activation activation = ops::Activation::gelu;
};

struct SentenceEncoderLayer {
  Linear query_key_value;  // rows [q; k; v], with bias
  Linear output;
  Norm attention_norm;  // after the residual sum
  FeedForward feed_forward;
  Norm feed_forward_norm;  // likewise
};

struct SentenceEncoder {
  SentenceEncoderConfig config;
  Linear embedding;                 // [V, E]
  at::Tensor position_embedding;    // [max_positions, E]
  at::Tensor token_type_embedding;  // [types, E]; type 0 is the only one used
  Norm embedding_norm;
  std::vector<SentenceEncoderLayer> layers;
};

// A Hugging Face folder of architecture BertModel (names with or without "bert."). Errors: as load_model.
SentenceEncoder load_sentence_encoder(const base::Path& folder, const LoadOptions& options);

// ids [n, S] int64 with [CLS] and [SEP], mask [n, S] (non-zero = a real token) or undefined -> hidden states [n, S, E].
// ids must be in the vocabulary. Errors: invalid_argument where S is beyond the model's positions.
at::Tensor forward(const SentenceEncoder& encoder, const at::Tensor& ids, const at::Tensor& mask = {});

// The mean over real tokens ([CLS] and [SEP] included), of length 1 where `normalise`: [n, E] float32.
// Contriever's are not normalised.
at::Tensor embed(const SentenceEncoder& encoder, const at::Tensor& ids, const at::Tensor& mask, bool normalise);

}  // namespace cepe::model
