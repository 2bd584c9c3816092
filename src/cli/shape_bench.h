// What the parts of `cepe bench --shape` share: a model of random weights of a published size, and the rows measured.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "cli/bench_shape.h"
#include "model/cepe_model.h"

namespace cepe::cli {

struct Shape {
  const char* name;
  model::DecoderConfig decoder;
  model::EncoderConfig encoder;
};
// Errors: invalid_argument, naming those that are known.
Shape find_shape(const std::string& name);

// Operations of T decoder rows and M context rows; two for each multiply-add.
double encoder_operations(const Shape& shape, double tokens);
double decoder_operations(const Shape& shape, double rows, double logit_rows, bool crossed);
double causal_operations(const Shape& shape, double rows);  // rows that see themselves and those before
// Per layer the cheaper of projecting K and V and of absorbing.
double cross_operations(const Shape& shape, double rows, double context);

class ShapeBench {
 public:
  static constexpr int64_t chunk = 256;
  static constexpr int64_t chunks_at_once = 64;  // in one pass of the encoder

  // format: of decoder and cross-attention; nothing: as they are.
  ShapeBench(const BenchShapeOptions& options, c10::Device device, std::optional<ops::PackedFormat> format);

  at::Device device() const { return values.device(); }
  bool wants(const std::string& part) const;
  at::Tensor tokens(int64_t count) const;  // random ids
  model::ContextStates encode(const at::Tensor& ids) const;
  model::ContextStates random_states(int64_t count) const;
  bool keep_projections(model::ContextStates& context) const;  // of all layers; false: the device has no room

  // One row of the result: `seconds` beside the longer of two bounds.
  void add(const std::string& what, int64_t context, double seconds, double operations, double bytes,
           int64_t sequences = 1);
  // Median of the runs after one that does not count; `work` is told the number of the run.
  double timed(const std::function<void(int64_t)>& work, int64_t runs = 0) const;

  BenchShapeOptions options;
  Shape shape;
  at::TensorOptions values;
  at::TensorOptions cached;                            // of self-attention's keys and values (make_kv_cache)
  double operations_a_second = 0, bytes_a_second = 0;  // what the machine can do, measured
  model::CepeModel model;
  std::vector<int64_t> lengths;  // whole chunks
  int64_t longest = 0;
  base::Json rows = base::Json::array();
};

void measure_encoding(ShapeBench& bench);
void measure_forward(ShapeBench& bench);       // of many decoder rows, all their logits
void measure_first_tokens(ShapeBench& bench);  // at the longest context
void measure_steps(ShapeBench& bench);         // a token of one sequence at each length
void measure_batches(ShapeBench& bench);       // tokens of many sequences together, at the longest

}  // namespace cepe::cli
