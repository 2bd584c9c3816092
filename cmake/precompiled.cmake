# Headers that nearly every file of a kind reads are read once a build, which halves its time: LibTorch's cost six
# seconds of a file's eleven. A file means the same without them (only the preset `release` has them).
option(CEPE_PRECOMPILE "precompile the headers of LibTorch and GoogleTest" OFF)

set(precompiled_torch <ATen/core/Tensor.h> <ATen/TensorOperators.h>)
set(precompiled_gtest <gmock/gmock.h> <gtest/gtest.h>)
set(precompiled_torch_target cepe::torch)
set(precompiled_gtest_target GTest::gmock)

# Tests spend their time in the layers they call: their own code is not worth the compiler's.
function(cepe_compile_unoptimised target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O0>)
endfunction()

# Lets `target`, of a layer or (is_test) its tests, use the headers of what it links, made when first asked for. The
# compiler takes a precompiled header only with the flags that it was made with: hence one for each combination.
function(cepe_precompile target layer is_test)
  if(NOT CEPE_PRECOMPILE OR layer STREQUAL "cli")  # which reads CLI11's, and these seldom: it would take longer
    return()
  endif()
  get_property(libraries GLOBAL PROPERTY cepe_libraries_${layer})
  if(is_test)
    list(APPEND libraries GTest::gmock)
  endif()
  set(name precompiled)
  foreach(part IN ITEMS torch gtest)
    if(precompiled_${part}_target IN_LIST libraries)
      string(APPEND name "_${part}")
      list(APPEND headers ${precompiled_${part}})
      list(APPEND used ${precompiled_${part}_target})
    endif()
  endforeach()
  if(NOT headers)
    return()
  endif()
  if(NOT TARGET ${name})
    file(WRITE "${CMAKE_BINARY_DIR}/${name}.cpp" "")
    add_library(${name} OBJECT "${CMAKE_BINARY_DIR}/${name}.cpp")
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${name} PRIVATE $<IF:$<BOOL:${is_test}>,-fPIE,-fPIC> -fpch-preprocess)
    if(is_test)
      cepe_compile_unoptimised(${name})
    endif()
    target_link_libraries(${name} PRIVATE ${used})
    target_precompile_headers(${name} PRIVATE ${headers})
  endif()
  target_precompile_headers(${target} REUSE_FROM ${name})
  target_compile_options(${target} PRIVATE -fpch-preprocess)  # what the compiler cache asks for
endfunction()
