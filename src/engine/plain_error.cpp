#include "engine/plain_error.h"

#include <c10/util/Exception.h>

#include <string>

#include "base/error.h"
#include "ops/device.h"

namespace cepe::engine {

void rethrow_plainly() {
  try {
    throw;
  } catch (const base::Error&) {
    throw;
  } catch (const std::exception& error) {
    if (ops::is_out_of_memory(error))
      throw base::Error(base::ErrorCode::out_of_memory,
                        "not enough memory: keep fewer K and V (--kept-memory), ask for fewer answers at one time, " +
                            std::string(memory_remedy));
    const auto* torch = dynamic_cast<const c10::Error*>(&error);
    if (!torch) throw;
    throw base::Error(base::ErrorCode::internal,
                      std::string("the engine's computation failed: ") + torch->what_without_backtrace());
  }
}

std::exception_ptr current_plainly() {
  try {
    rethrow_plainly();
  } catch (...) {
    return std::current_exception();
  }
}

}  // namespace cepe::engine
