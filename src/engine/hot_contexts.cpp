#include "engine/hot_contexts.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/log.h"
#include "model/cost_model.h"
#include "ops/device.h"
#include "ops/int8_context.h"

namespace cepe::engine {

KeptForm kept_form(const model::CepeModel& model, const model::ContextStates& context, KeptType wanted) {
  const at::Tensor& page = context.pages.front();
  const bool exact = model.decoder.activation_type == at::kFloat && page.scalar_type() == at::kFloat;
  const model::HeadShape shape = model::head_shape(model.decoder.config);
  const int64_t layers = model::cross_attention_layers(model);
  if (wanted == KeptType::int8 ||
      (wanted == KeptType::automatic && !exact && page.is_cpu() && ops::takes_int8_context(context.state_width()))) {
    std::vector<int64_t> rows;
    for (const at::Tensor& one : context.pages) rows.push_back(one.size(0));
    return {at::kByte, layers * ops::int8_context_bytes(rows, shape.groups, shape.width, shape.width)};
  }
  const at::ScalarType type = exact && wanted == KeptType::automatic ? at::kFloat : at::kBFloat16;
  const auto value_bytes = static_cast<int64_t>(at::elementSize(type));
  return {type, model::kept_bytes(model::cost_of(context, 1, shape), layers, value_bytes)};
}

bool keep_what_fits(const model::CepeModel& model, model::ContextStates& context, const KeptForm& form,
                    context::ProjectionStore* projections) {
  const int64_t available = ops::available_bytes(model.decoder.device());
  if (available > 0 && form.bytes > available) return false;
  try {
    if (projections && form.type == at::kByte) {
      projections->keep(context);
    } else {
      model::keep_projections(context, model::cross_attention_blocks(model), model::head_shape(model.decoder.config),
                              form.type);
    }
  } catch (const std::exception& error) {
    if (!ops::is_out_of_memory(error)) throw;
    return false;
  }
  return true;
}

void HotContexts::count(const ContextPointer& context, int64_t query_rows) {
  if (context->rows == 0 || !context->kept.empty()) return;
  const auto cost = model::cost_of(*context, query_rows, model::head_shape(model_->decoder.config));
  const double loss = model::loss_without_kept(cost);
  if (loss <= 0) return;
  Entry& entry = entries_[context.get()];
  if (entry.context.lock() != context)  // new, or another one stood at this address
    entry = {context, 0, model::projection_cost(cost), nullptr};
  entry.losses += loss;
  due_ = due_ || (!entry.hot && entry.losses > entry.price);
}

void HotContexts::follow(const ContextPointer& from, const ContextPointer& to) {
  const auto found = entries_.find(from.get());
  if (found == entries_.end() || found->second.context.lock() != from || !to->kept.empty()) return;
  const Entry before = found->second;
  entries_.erase(found);
  const double share = static_cast<double>(from->rows) / static_cast<double>(to->rows);
  entries_[to.get()] = {to, before.losses * share, before.price, nullptr};
}

std::vector<ContextPointer> HotContexts::keep(int64_t budget_bytes) {
  std::vector<ContextPointer> made;
  due_ = false;
  for (auto& [address, entry] : entries_) {
    const ContextPointer context = entry.context.lock();
    if (!context || entry.hot || entry.losses <= entry.price) continue;
    entry.losses = 0;
    const KeptForm form = kept_form(*model_, *context, type_);
    if (form.bytes > budget_bytes) continue;
    model::ContextStates hot;  // not a copy: what knows a context by its table is to see another
    for (const at::Tensor& page : context->pages) hot.append(page);
    if (!keep_what_fits(*model_, hot, form)) {
      base::detail("engine: no memory to keep K and V of a context of " + std::to_string(context->rows) + " tokens");
      continue;
    }
    budget_bytes -= form.bytes;
    entry.hot = std::make_shared<const model::ContextStates>(std::move(hot));
    made.push_back(entry.hot);
  }
  return made;
}

const ContextPointer& HotContexts::current(const ContextPointer& context) const {
  const auto found = entries_.find(context.get());
  if (found == entries_.end() || !found->second.hot || found->second.context.lock() != context) return context;
  return found->second.hot;
}

void HotContexts::drop_expired() {
  std::erase_if(entries_, [](const auto& entry) { return entry.second.context.expired(); });
}

bool HotContexts::forget() {
  bool any = false;
  for (auto& [address, entry] : entries_) any = std::exchange(entry.hot, nullptr) || any;
  return any;
}

}  // namespace cepe::engine
