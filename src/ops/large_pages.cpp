#include "ops/large_pages.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace cepe::ops {

void prefer_large_pages(const at::Tensor& tensor) {
  constexpr uintptr_t page = uintptr_t{2} << 20;
  if (!tensor.is_cpu() || tensor.nbytes() < page) return;
  auto* const data = static_cast<std::byte*>(tensor.data_ptr());
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (address + page - 1) / page * page, end = (address + tensor.nbytes()) / page * page;
  if (first < end) ::madvise(data + (first - address), end - first, MADV_HUGEPAGE);
}

}  // namespace cepe::ops
