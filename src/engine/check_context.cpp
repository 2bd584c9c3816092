#include "engine/check_context.h"

#include <algorithm>
#include <sstream>
#include <string>

#include "base/error.h"
#include "ops/int8_rows.h"

namespace cepe::engine {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw base::Error(base::ErrorCode::invalid_argument, what); }

std::string described(const at::Tensor& page) {
  if (!page.defined()) return "no tensor";
  std::ostringstream text;
  text << page.scalar_type() << " " << page.sizes() << " on " << page.device();
  return text.str();
}

}  // namespace

void check_context(const model::CepeModel& model, const model::ContextStates& context) {
  if (context.rows == 0 && context.pages.empty()) return;
  if (!model.adapter) refuse("a context needs an adapter: the model alone has no encoder; give one with --adapter");
  const int64_t width = model.adapter->encoder.config.width;
  const at::Device device = model.decoder.device();
  int64_t rows = 0;
  for (size_t i = 0; i < context.pages.size(); ++i) {
    const at::Tensor& page = context.pages[i];
    const bool fits = page.defined() && page.dim() == 2 && page.device() == device &&
                      (page.is_floating_point() || ops::is_int8_rows(page)) && ops::row_width(page) == width &&
                      page.scalar_type() == context.pages.front().scalar_type();
    if (!fits) {
      refuse("page " + std::to_string(i) + " of a context is " + described(page) +
             "; this model's encoder makes pages of one type, " + std::to_string(width) + " values a row, on " +
             device.str() + ": take the states from this model's store");
    }
    rows += page.size(0);
  }
  if (rows != context.rows)
    refuse("a context of " + std::to_string(context.rows) + " rows has pages of " + std::to_string(rows) +
           ": were its states moved elsewhere?");
}

}  // namespace cepe::engine
