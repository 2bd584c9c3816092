option(CEPE_CUDA "compile libcepe_cuda.so (needs the CUDA compiler of the tool-chain, no GPU)" OFF)
option(CEPE_FUZZ "build the libFuzzer targets, and the unit tests of the layers without tensors, only (clang)" OFF)
option(CEPE_SANITIZE "address and undefined-behaviour sanitizers" OFF)
option(CEPE_BENCH "build the benchmarks in bench/ (Google Benchmark)" OFF)
option(CEPE_UNITY "compile the files of a target a few at a time, as one" OFF)
option(BUILD_TESTING "build the tests" ON)

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(warnings -Wall -Wextra -Wshadow -Wno-missing-field-initializers)
list(JOIN warnings "," host_warnings)
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${warnings};-Werror>"
                    "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${host_warnings};-Werror=all-warnings>")

# LibTorch's headers cost 10 s a file, the file itself 2 to 4: several files that are compiled as one read them once.
# Their unnamed namespaces become one too, so no two files of a layer may give different helpers the same name.
# Relocatable: the same text in every clone, so that the compiler cache knows it.
if(CEPE_UNITY)
  set(CMAKE_UNITY_BUILD ON)
  set(CMAKE_UNITY_BUILD_BATCH_SIZE 8)
  set(CMAKE_UNITY_BUILD_RELOCATABLE ON)
  # g++ allows a class of a .cpp a member from the unnamed namespace, but not where that .cpp is included.
  add_compile_options("$<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-subobject-linkage>")
endif()

find_program(ccache_program ccache)
if(ccache_program)
  # Base folder and no hashed folder names: a second clone of the same sources compiles from the cache.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1
                                  CCACHE_SLOPPINESS=pch_defines,time_macros ${ccache_program})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()

if(CEPE_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()
if(CEPE_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()
