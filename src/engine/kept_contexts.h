// What the K and V of an engine's contexts take together, whoever holds these: requests, answers whose windows slid.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/request.h"

namespace cepe::engine {

// One thread at a time; contexts may end on any.
class KeptContexts {
 public:
  // One without K and V is none of its business.
  void add(const ContextPointer& context);
  // Of those that somebody still has; what several share (a context in 8 bits that grew) counts once.
  int64_t bytes();

 private:
  void drop_expired();

  std::vector<std::weak_ptr<const model::ContextStates>> contexts_;
};

}  // namespace cepe::engine
