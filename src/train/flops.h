// Floating-point operations of training, as the models' shapes give them: what model FLOPs utilisation (MFU) divides
// by.
#pragma once

#include "train/batch.h"
#include "train/trainee.h"

namespace cepe::train {

// Of one micro-batch, forward and backward. Two a multiply-add; backward costs a product for the gradient of its input
// where anything below it is trained, and another where its weight is; attention costs twice its forward pass.
// Recomputation is not counted.
double training_flops(const Trainee& trainee, const Batch& batch);

}  // namespace cepe::train
