// Contexts of answers whose windows slid, found again by what they came of. Answers to one prompt, and requests over
// one context, move the same text to the encoder as long as it is the prompt's: they then have one context, so that its
// K and V are kept once and their passes read it together.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/request.h"

namespace cepe::engine {

// One thread at a time; contexts may end on any.
class SlidContexts {
 public:
  // What `from` became when `moved`, encoded by `store`, joined it; nullptr where nobody has that.
  ContextPointer find(const ContextPointer& from, const context::ContextStore& store,
                      std::span<const text::Token> moved);
  void add(const ContextPointer& from, const context::ContextStore& store, std::span<const text::Token> moved,
           const ContextPointer& slid);

 private:
  struct Entry {
    std::weak_ptr<const model::ContextStates> from, slid;
    const context::ContextStore* store;
    std::vector<text::Token> moved;
  };
  std::vector<Entry> entries_;
};

}  // namespace cepe::engine
