// Whether a run fits the memory of a CPU, asked before it is taken: the kernel ends a program that takes more than
// there is, without a word. (A GPU refuses it, with an error.)
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "train/trainee.h"

namespace cepe::train {

// Bytes of a decoder made from nothing, which is made in float32.
int64_t random_decoder_bytes(const model::DecoderConfig& config);

// Bytes that an optimiser keeps from step to step beside the weights: sums, momenta, variances of AdamW, masters.
int64_t optimiser_bytes(const std::vector<Parameter>& parameters, const OptimiserSettings& settings);

// Bytes that a micro-batch of a phase takes at least, when the backward pass begins: what the decoder's layers keep for
// it. The least of them: no logits, no encoder, no teacher, no masked language model.
int64_t micro_batch_bytes(const Trainee& trainee, const Recipe& recipe, const PhaseSettings& phase);

// Errors: out_of_memory where `available` bytes do not suffice, with the figures and the fields that lower them.
void check_decoder_memory(const model::DecoderConfig& config, const std::string& path, int64_t available);
void check_optimiser_memory(const Trainee& trainee, const Recipe& recipe, int64_t available);
void check_micro_batch_memory(const Trainee& trainee, const Recipe& recipe, int64_t available);

}  // namespace cepe::train
