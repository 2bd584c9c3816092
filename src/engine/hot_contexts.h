// Contexts whose K and V begin to be kept because they are asked again and again, where the cost model would not have
// kept them from the start (a GPU reads the states faster for a few rows, and they take a fraction of the memory).
// Each pass that would have taken less time over kept K and V adds that time to the context's losses. Once these exceed
// what making K and V takes, they are made: all passes together then never lose more than twice what the best choice in
// hindsight would have cost (the rule of renting skis until their price is spent).
//
// One thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "context/projection_store.h"
#include "engine/request.h"
#include "model/cepe_model.h"

namespace cepe::engine {

// How K and V are kept. automatic: float32 where weights and states are; otherwise in 8 bits on a CPU, which reads them
// several times as fast (docs/performance.md), and bfloat16 on a GPU.
enum class KeptType { automatic, bfloat16, int8 };

// Of a context: at::kByte = 8 bits; the bytes of all layers.
struct KeptForm {
  at::ScalarType type;
  int64_t bytes;
};
KeptForm kept_form(const model::CepeModel& model, const model::ContextStates& context, KeptType type);
// Keeps them so. False, and none, where there is no memory for them; it is not tried where they cannot fit, which would
// leave the rest of the program with what had been taken from it. `projections`, where there are any, has those in 8
// bits.
bool keep_what_fits(const model::CepeModel& model, model::ContextStates& context, const KeptForm& form,
                    context::ProjectionStore* projections = nullptr);

class HotContexts {
 public:
  // The model must outlive it.
  explicit HotContexts(const model::CepeModel& model, KeptType type = KeptType::automatic)
      : model_(&model), type_(type) {}

  // A pass of query_rows rows read the context. Contexts without rows, or with K and V, are none of its business.
  void count(const ContextPointer& context, int64_t query_rows);
  // `from`, which nobody else reads, became `to`: the same pages and more behind them. What passes lost over `from`
  // counts for `to`, spread over its rows.
  void follow(const ContextPointer& from, const ContextPointer& to);
  // Whether some context has lost enough.
  bool due() const { return due_; }
  // Makes K and V of those that have, as long as all of them fit into budget_bytes; one that does not fit, or for which
  // there is no memory, has to lose as much again. -> those contexts, as they are with K and V.
  std::vector<ContextPointer> keep(int64_t budget_bytes);
  // The same context with K and V where they were made, else itself.
  const ContextPointer& current(const ContextPointer& context) const;
  // Gives up all K and V that it made; false: there are none. Contexts handed out keep theirs as long as they live.
  bool forget();
  // Gives up those of contexts that nobody has any more.
  void drop_expired();

 private:
  struct Entry {
    std::weak_ptr<const model::ContextStates> context;
    double losses = 0, price = 0;  // in the units of model/cost_model.h: per row of the context
    ContextPointer hot;
  };
  const model::CepeModel* model_;
  KeptType type_;
  std::map<const model::ContextStates*, Entry> entries_;
  bool due_ = false;
};

}  // namespace cepe::engine
