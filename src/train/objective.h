// What a stage minimises, for one micro-batch.
#pragma once

#include <ATen/core/Tensor.h>

#include "train/batch.h"
#include "train/trainee.h"

namespace cepe::train {

struct Loss {
  at::Tensor total;          // scalar, differentiable
  at::Tensor cross_entropy;  // nats a token (stage mlm: a masked token), detached
  at::Tensor divergence;     // KL(teacher || student) a position, detached; undefined where there is no teacher
};

// total = cross_entropy * loss.cross_entropy + divergence * loss.divergence. Windows go through the decoder together;
// logits are made by chunks of rows (ops/chunked_loss.h).
Loss objective(const Trainee& trainee, const Batch& batch, const Recipe& recipe);

// Hidden rows of all windows after the final norm, [W * B * T, C], in the order of Batch::window_tokens().
at::Tensor window_hidden(const Trainee& trainee, const Batch& batch, bool recompute);

// What the teacher thinks of the same rows: the decoder without its new blocks reads the whole sample directly.
at::Tensor teacher_hidden(const Trainee& trainee, const Batch& batch);

}  // namespace cepe::train
