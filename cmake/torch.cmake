# cepe::torch: the parts of LibTorch that are linked, from the folder of its wheel (with include/ and lib/). Installed
# with the library: LibTorch's own TorchConfig.cmake wants a whole CUDA tool-chain, and links 400 MB of CUDA.
function(cepe_torch_target torch_root)
  add_library(cepe::torch INTERFACE IMPORTED GLOBAL)
  target_include_directories(cepe::torch SYSTEM INTERFACE ${torch_root}/include)
  # OpenMP: compiled with -fopenmp, linked to the libgomp that LibTorch brings, so that there is one team of threads.
  file(GLOB torch_gomp "${torch_root}/lib/libgomp*.so*")
  target_compile_options(cepe::torch INTERFACE -fopenmp)
  # <ATen/TensorOperators.h> otherwise includes every operator there is: a third of a file's compile time.
  target_compile_definitions(cepe::torch INTERFACE AT_PER_OPERATOR_HEADERS)
  target_link_libraries(cepe::torch INTERFACE ${torch_root}/lib/libtorch_cpu.so ${torch_root}/lib/libc10.so ${torch_gomp}
                                              Threads::Threads)
  # libtorch_cpu itself needs libcudart and libcupti, found by its own run path.
  target_link_options(cepe::torch INTERFACE -Wl,--allow-shlib-undefined)
endfunction()

# The version as its headers tell it ("2.11.0"); empty where there is none.
function(cepe_torch_version torch_root result)
  set(${result} "" PARENT_SCOPE)
  set(header "${torch_root}/include/torch/headeronly/version.h")
  if(EXISTS "${header}")
    set(version "")
    foreach(part IN ITEMS MAJOR MINOR PATCH)
      file(STRINGS "${header}" line REGEX "^#define TORCH_VERSION_${part} [0-9]+")
      string(REGEX MATCH "[0-9]+$" number "${line}")
      list(APPEND version "${number}")
    endforeach()
    list(JOIN version "." version)
    set(${result} "${version}" PARENT_SCOPE)
  endif()
endfunction()
