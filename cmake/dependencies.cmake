# Every library the project links, as a target of its own. Debian packages, but LibTorch: it comes from its PyPI
# wheel in the tool-chain's virtual environment, of which only libtorch_cpu and libc10 are linked.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)

include(torch)  # cepe_torch_target

# Imported targets, which whoever links the installed library makes again from cepe_packages (cepeConfig.cmake.in).
function(cepe_pkg name)
  pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${ARGN})
  add_library(cepe::${name} INTERFACE IMPORTED GLOBAL)
  target_link_libraries(cepe::${name} INTERFACE PkgConfig::${name})
  set_property(GLOBAL APPEND PROPERTY cepe_packages "${name}=${ARGN}")
endfunction()
cepe_pkg(crypto libcrypto)
cepe_pkg(yaml yaml-cpp)
cepe_pkg(zstd libzstd)
cepe_pkg(pcre2 libpcre2-8)
cepe_pkg(utf8proc libutf8proc)
cepe_pkg(sentencepiece sentencepiece)
cepe_pkg(sqlite sqlite3)
cepe_pkg(xxhash libxxhash)
cepe_pkg(hiredis hiredis)
cepe_pkg(json nlohmann_json)

if(NOT CEPE_FUZZ)
  find_package(CLI11 REQUIRED)

  set(toolchain "$ENV{CEPE_TOOLCHAIN}" CACHE PATH "virtual environment made by scripts/setup")
  file(GLOB torch_root "${toolchain}/lib/python3.*/site-packages/torch")
  if(NOT torch_root)
    message(FATAL_ERROR "no LibTorch under '${toolchain}': run scripts/setup, then scripts/build")
  endif()
  file(GLOB cuda_root "${toolchain}/lib/python3.*/site-packages/nvidia/cu13")
  cepe_torch_target(${torch_root})
  set(CMAKE_BUILD_RPATH "$ORIGIN;${torch_root}/lib;${cuda_root}/lib")
endif()

if(BUILD_TESTING)
  find_package(GTest REQUIRED)
  find_package(rapidcheck REQUIRED)
endif()
