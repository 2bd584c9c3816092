#include <c10/cuda/CUDAGuard.h>

#include "ops/cuda/launch.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {

DriverState cepe_cuda_driver_state() {
  DriverState state = {};
  cudaDriverGetVersion(&state.driver);
  cudaRuntimeGetVersion(&state.runtime);
  const cudaError_t error = cudaGetDeviceCount(&state.devices);
  if (error == cudaSuccess) return state;
  cudaGetLastError();  // it would otherwise be found by the next launch
  state.devices = 0;
  state.error = cudaGetErrorString(error);
  return state;
}

int cepe_cuda_capability(int device) {
  int major = 0, minor = 0;
  const bool found = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
                     cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess;
  return found ? major * 10 + minor : 0;
}

const CudaKernels* cepe_cuda_kernels(int device) {
  static constexpr CudaKernels table = {rms_norm,
                                        rotate,
                                        rotate_into_cache,
                                        gated,
                                        rms_norm_gradient,
                                        gated_silu_gradient,
                                        cross_entropy,
                                        row_product,
                                        transposed_head_product,
                                        tuned_product,
                                        gated_product,
                                        rotated_product,
                                        paged_attention,
                                        paged_attention_bytes,
                                        token_attention,
                                        takes_token_attention,
                                        attends_into_heads,
                                        page_log_sum_exps,
                                        takes_page_log_sum_exps,
                                        dense_attention_units,
                                        dense_attention,
                                        merge_attention,
                                        packed_product,
                                        unpack,
                                        record_graph,
                                        replay_graph,
                                        destroy_graph};
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  return has_machine_code() ? &table : nullptr;
}

}  // namespace cepe::ops::cuda
