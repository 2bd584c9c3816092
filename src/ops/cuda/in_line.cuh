// Kernels that follow one another closely: each may begin while the one before it ends (programmatic dependent launch,
// sm_90 and later), so that its launch, and what it reads that nobody writes, costs no time of its own.
// Before that nothing is known of any kernel since the last one that was not launched so: each lets the next begin
// before it has waited itself.
// Every kernel launched so calls wait_for_predecessor in all threads before it reads what others wrote or writes
// anything: then whatever came before the predecessor is done too.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

namespace cepe::ops::cuda {

// The next kernel may be started as soon as all blocks have said so.
__device__ inline void let_successor_begin() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
// Until the kernel before this one is over and what it wrote can be seen.
__device__ inline void wait_for_predecessor() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

template <class... Parameters, class... Arguments>
cudaError_t launch_in_line(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                           Arguments&&... arguments) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(std::forward<Arguments>(arguments))...);
}

}  // namespace cepe::ops::cuda
