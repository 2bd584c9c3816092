#include "train/objective.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <functional>

#include "base/error.h"
#include "model/losses.h"
#include "ops/activation.h"
#include "ops/chunked_loss.h"

namespace cepe::train {
namespace {

const at::Tensor& output_table(const model::Decoder& decoder) {
  return decoder.lm_head ? decoder.lm_head.weight : decoder.embedding.weight;
}

// Contexts of one-window batches with masked tokens: ragged, since what is masked is not there.
std::vector<model::ContextStates> masked_contexts(const model::Adapter& adapter, const Batch& batch) {
  const at::Tensor chunks =
      batch.tokens.narrow(1, 0, batch.encoded_tokens()).reshape({batch.tokens.size(0), -1, adapter.chunk_size});
  return encode_chunks(adapter.encoder, chunks, batch.context_mask);
}

// [B, M, E] of everything that any window sees.
at::Tensor encode_text(const model::Adapter& adapter, const Batch& batch) {
  const int64_t count = batch.tokens.size(0), reach = batch.encoded_tokens();
  const at::Tensor chunks = batch.tokens.narrow(1, 0, reach).reshape({-1, adapter.chunk_size});
  return forward(adapter.encoder, chunks).reshape({count, reach, -1});
}

model::CrossAttentionInput context_of(const Trainee& trainee, const Batch& batch,
                                      std::vector<model::ContextStates>& ragged) {
  model::CrossAttentionInput cross;
  if (!trainee.model.adapter || batch.encoded_tokens() == 0) return cross;
  cross.blocks = cross_attention_blocks(trainee.model);
  if (batch.context_mask.defined()) {
    ragged = masked_contexts(*trainee.model.adapter, batch);
    for (const model::ContextStates& context : ragged) cross.contexts.push_back(&context);
    cross.path = model::CrossAttentionPath::projected;
  } else {
    cross.shared = model::SharedContext{encode_text(*trainee.model.adapter, batch), batch.slices};
  }
  return cross;
}

Loss masked_language_modelling(const model::MaskedLanguageModel& masked, const Batch& batch, const Recipe& recipe) {
  const at::Tensor states = forward(masked.encoder, batch.tokens);
  const at::Tensor hidden =
      forward(masked.norm, ops::activate(masked.encoder.config.activation, forward(masked.dense, states)));
  const at::Tensor rows = hidden.reshape({-1, hidden.size(-1)});
  // The output's bias as one more column: x * W^T + b = [x 1] * [W b]^T.
  const at::Tensor wide = at::cat({rows, at::ones({rows.size(0), 1}, rows.options())}, 1);
  const at::Tensor table = at::cat({masked.output.weight, masked.output.bias.unsqueeze(1)}, 1);
  const at::Tensor loss =
      ops::linear_cross_entropy(wide, table, batch.labels.reshape({-1}), 0, recipe.loss.rows_per_chunk);
  return {loss * recipe.loss.cross_entropy, loss.detach(), {}};
}

// Rows at which the divergence is taken: the published modes look at the last half of each window only.
at::Tensor distilled_rows(const Batch& batch, bool last_half) {
  const int64_t length = batch.decoder_tokens, count = batch.windows * batch.tokens.size(0);
  at::Tensor weight = at::ones({count, length}, batch.tokens.options().dtype(at::kFloat));
  if (last_half) weight.narrow(1, 0, length - length / 2).zero_();
  return weight.reshape({-1});
}

// KL(teacher || student) of rows first, first + 1, ... of the windows, given the student's logits of them [rows, V].
using Divergence = std::function<at::Tensor(const at::Tensor& logits, int64_t first, int64_t rows)>;

// The teacher reads the same text directly, and its logits are made beside the student's.
Divergence from_teacher(const Trainee& trainee, const Batch& batch, const LossSettings& loss) {
  const at::Tensor hidden = teacher_hidden(trainee, batch), table = output_table(trainee.model.decoder);
  const model::DecoderConfig& config = trainee.model.decoder.config;
  return [hidden, table, &config, loss](const at::Tensor& logits, int64_t first, int64_t rows) {
    at::Tensor wanted;
    {
      const at::NoGradGuard none;
      wanted = model::capped_logits(config, at::matmul(hidden.narrow(0, first, rows), table.t()));
    }
    if (loss.mode == "full") return model::divergence(logits, wanted);
    return model::top_divergence(logits, wanted, loss.top, model::distillation_mode(loss.mode));
  };
}

// What it said is stored, of the last half of each window. The other rows have no weight: anything will do there.
Divergence from_stored(const Batch& batch, const LossSettings& loss) {
  const auto by_row = [&](const at::Tensor& stored) {
    const int64_t missing = batch.decoder_tokens - stored.size(1);
    return at::constant_pad_nd(stored, {0, 0, missing, 0}).reshape({-1, stored.size(2)});
  };
  const at::Tensor probabilities = by_row(batch.teacher_probabilities), indices = by_row(batch.teacher_indices);
  const model::DistillationMode mode = model::distillation_mode(loss.mode);
  return [probabilities, indices, mode](const at::Tensor& logits, int64_t first, int64_t rows) {
    return model::listed_divergence(logits, probabilities.narrow(0, first, rows), indices.narrow(0, first, rows), mode);
  };
}

// Cross-entropy and divergence over the same logits, chunk by chunk.
Loss distillation(const Trainee& trainee, const Batch& batch, const Recipe& recipe, const at::Tensor& hidden) {
  const model::Decoder& decoder = trainee.model.decoder;
  const at::Tensor& table = output_table(decoder);
  const at::Tensor labels = batch.next_tokens().reshape({-1});
  const Divergence divergence_of = batch.teacher_probabilities.defined() ? from_stored(batch, recipe.loss)
                                                                         : from_teacher(trainee, batch, recipe.loss);
  const at::Tensor weight = distilled_rows(batch, recipe.loss.mode != "full");
  const double predicted = static_cast<double>(batch.predicted()), positions = weight.sum().item<double>();
  at::Tensor entropy_sum = at::zeros({}, weight.options()), divergence_sum = at::zeros({}, weight.options());
  const auto loss_of = [&](const at::Tensor& raw, int64_t first, int64_t rows) {
    const at::Tensor logits = model::capped_logits(decoder.config, raw);
    const at::Tensor entropy =
        at::cross_entropy_loss(logits, labels.narrow(0, first, rows), {}, at::Reduction::Sum) / predicted;
    const at::Tensor divergence =
        (divergence_of(logits, first, rows) * weight.narrow(0, first, rows)).sum() / positions;
    entropy_sum += entropy.detach();
    divergence_sum += divergence.detach();
    return entropy * recipe.loss.cross_entropy + divergence * recipe.loss.divergence;
  };
  const at::Tensor total = ops::chunked_loss(hidden, table, loss_of, recipe.loss.rows_per_chunk);
  return {total, entropy_sum, divergence_sum};
}

}  // namespace

at::Tensor window_hidden(const Trainee& trainee, const Batch& batch, bool recompute) {
  std::vector<model::ContextStates> ragged;
  const model::CrossAttentionInput cross = context_of(trainee, batch, ragged);
  return forward(trainee.model.decoder, model::uniform_layout(batch.window_tokens()), nullptr, cross, recompute);
}

at::Tensor teacher_hidden(const Trainee& trainee, const Batch& batch) {
  const at::NoGradGuard none;
  const at::Tensor hidden = forward(trainee.model.decoder, model::uniform_layout(batch.tokens), nullptr);
  const int64_t count = batch.tokens.size(0), width = hidden.size(1);
  return hidden.reshape({count, -1, width})
      .narrow(1, batch.context_tokens, batch.windows * batch.decoder_tokens)
      .reshape({count, batch.windows, batch.decoder_tokens, width})
      .transpose(0, 1)
      .reshape({-1, width});
}

Loss objective(const Trainee& trainee, const Batch& batch, const Recipe& recipe) {
  if (trainee.masked) return masked_language_modelling(*trainee.masked, batch, recipe);
  const at::Tensor hidden = window_hidden(trainee, batch, recipe.recompute);
  if (stage_of(recipe.stage) == Stage::ceped) return distillation(trainee, batch, recipe, hidden);
  const model::Decoder& decoder = trainee.model.decoder;
  const at::Tensor loss = ops::linear_cross_entropy(hidden, output_table(decoder), batch.next_tokens().reshape({-1}),
                                                    decoder.config.logit_cap, recipe.loss.rows_per_chunk);
  return {loss * recipe.loss.cross_entropy, loss.detach(), {}};
}

}  // namespace cepe::train
