// fp8 weights whose rounding is calibrated on a text: each product is rounded so that its outputs over that text change
// least (ops/calibrated_rounding.h). Layer by layer, each seeing what the layers before it give once they are rounded,
// so that a model never stands in memory unquantised as a whole. Sums are taken of the dense products' inputs alone:
// what is packed already, as blocks of a file on a CPU, stays as it is and costs nothing here.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/cepe_model.h"
#include "model/decoder.h"
#include "model/layout.h"

namespace cepe::model {

// A decoder's products, while it is loaded.
class DecoderCalibration {
 public:
  // windows [B, T] int64: token ids, each row a piece of text of its own. Errors: invalid_argument for ids outside the
  // vocabulary and windows longer than learned positions.
  DecoderCalibration(const DecoderConfig& config, const at::Tensor& windows, at::Device device);

  // Once for each layer, when the decoder has it and none after it: its dense products to fp8.
  void quantise_last_layer(Decoder& decoder);
  // A dense lm_head to fp8, when all layers and the last norm are there.
  void quantise_head(Decoder& decoder);
  // Whether any product was dense.
  bool found_any() const { return found_any_; }

 private:
  // A part of the windows, and its rows behind the first `layers_` layers.
  struct Part {
    BatchLayout layout;
    at::Tensor hidden;  // [N, C]
  };

  // To the rows before layer `count`. Only where they are needed: a layer that is packed already is not computed.
  void advance(const Decoder& decoder, size_t count);

  at::Tensor windows_;
  std::vector<Part> parts_;
  size_t layers_ = 0;
  bool found_any_ = false;
};

// Query and output of every cross-attention block to fp8, the decoder being loaded: the second half of each window
// attends to the first, encoded.
void quantise_calibrated(Adapter& adapter, const Decoder& decoder, const at::Tensor& windows);

}  // namespace cepe::model
