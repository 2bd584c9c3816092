# libcepe_cuda.so: everything CUDA (kernels, and a thin .cpp beside each), loaded at run time when there is a GPU.
set(CMAKE_CUDA_COMPILER "${cuda_root}/bin/nvcc" CACHE FILEPATH "CUDA compiler")
set(CMAKE_CUDA_ARCHITECTURES "90a" CACHE STRING "GPU architectures")
set(CMAKE_CUDA_STANDARD 20)
# One CUDA runtime in the process: the shared one that LibTorch uses.
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
enable_language(CUDA)
file(GLOB_RECURSE kernel_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/*.cu")
file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/*_cuda.cpp")
# Without LibTorch's headers there is little to share, and kernels that wait for one another build later.
set_source_files_properties(${kernel_sources} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)

add_library(cepe_cuda SHARED ${kernel_sources} ${cuda_sources})
target_include_directories(cepe_cuda PRIVATE "${CMAKE_BINARY_DIR}/include/ops")
target_include_directories(cepe_cuda SYSTEM PRIVATE ${cuda_root}/include)
# LibTorch's CUDA part is wanted for what it registers when it is loaded, not only for the symbols used here.
target_link_options(cepe_cuda PRIVATE -Wl,--no-as-needed)
target_link_libraries(cepe_cuda PRIVATE cepe::torch ${torch_root}/lib/libtorch_cuda.so ${torch_root}/lib/libc10_cuda.so)
# Where scripts/setup puts the libraries of a GPU: folders that are there only on a machine with one.
get_filename_component(nvidia_root "${torch_root}/../nvidia" ABSOLUTE)
set(cuda_run_path "$ORIGIN" "${torch_root}/lib")
foreach(part IN ITEMS cu13 cudnn nccl cusparselt nvshmem cublas cufft curand cusolver cusparse cufile nvjitlink cuda_nvrtc)
  list(APPEND cuda_run_path "${nvidia_root}/${part}/lib")
endforeach()
set_target_properties(cepe_cuda PROPERTIES BUILD_RPATH "${cuda_run_path}")

# The program loads it at run time: who builds the one wants the other.
foreach(program IN ITEMS cepe ops_gpu_test model_gpu_test context_gpu_test engine_gpu_test)
  if(TARGET ${program})
    add_dependencies(${program} cepe_cuda)
  endif()
endforeach()
