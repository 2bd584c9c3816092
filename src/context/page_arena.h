// Device memory for pages, taken once: slots of equal size. A page is a tensor over its slot; the slot is free again
// once the page and every view of it are gone, whoever drops them last, so that no slot is reused under somebody's
// eyes. (Work that a GPU has still to do with a page must be on the stream that fills the next one, or be over.)
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

namespace cepe::context {

class PageArena {
 public:
  // So many slots as fit into `bytes`. Errors: LibTorch's where the device has less.
  PageArena(int64_t bytes, int64_t rows, int64_t width, at::ScalarType type, at::Device device);

  // [rows, E], uninitialised; undefined where no slot is free or the page is larger than one.
  at::Tensor take(int64_t rows);
  int64_t slots() const;

 private:
  struct Slots;
  std::shared_ptr<Slots> slots_;  // the pages hold it too
};

}  // namespace cepe::context
