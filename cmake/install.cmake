# cmake --install: the program, its CUDA part, the adapters that ship, and the layers below the program as a library that
# others embed with find_package(cepe). Nothing installed knows the build tree; LibTorch stays where it is (its folder
# is in the run paths, and a place where find_package looks). A release is installed without debug information, which is
# nine tenths of it and full of the build's paths.
set(CMAKE_INSTALL_BINDIR bin)
set(CMAKE_INSTALL_LIBDIR lib)  # ops/device.cpp looks for libcepe_cuda.so in ../lib of the program
set(CMAKE_INSTALL_INCLUDEDIR include/cepe)
set(CMAKE_INSTALL_DATADIR share)
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/cepe)
include(CMakePackageConfigHelpers)

install(TARGETS cepe RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
set_target_properties(cepe PROPERTIES INSTALL_RPATH "$ORIGIN/../lib;${torch_root}/lib;${cuda_root}/lib")
if(TARGET cepe_cuda)
  install(TARGETS cepe_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  set_target_properties(cepe_cuda PROPERTIES INSTALL_RPATH "${cuda_run_path}")
endif()
install(DIRECTORY "${PROJECT_SOURCE_DIR}/models" DESTINATION ${CMAKE_INSTALL_DATADIR}/cepe OPTIONAL)
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/cepe)

# What others link: all layers, the types that their headers show, nothing of how they are built.
get_property(installed_layers GLOBAL PROPERTY cepe_installed_layers)
add_library(cepe_embedded INTERFACE)
set_target_properties(cepe_embedded PROPERTIES EXPORT_NAME cepe)
target_compile_features(cepe_embedded INTERFACE cxx_std_20)
target_include_directories(cepe_embedded INTERFACE "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
target_link_libraries(cepe_embedded INTERFACE cepe::torch cepe::json)
foreach(layer IN LISTS installed_layers)
  target_link_libraries(cepe_embedded INTERFACE cepe_${layer})
  set_target_properties(cepe_${layer} PROPERTIES EXPORT_NAME ${layer})
  install(TARGETS cepe_${layer} EXPORT cepeTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(DIRECTORY "${PROJECT_SOURCE_DIR}/src/${layer}" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
          FILES_MATCHING PATTERN "*.h")
endforeach()
install(TARGETS cepe_embedded EXPORT cepeTargets)
install(EXPORT cepeTargets NAMESPACE cepe:: DESTINATION ${package_folder})

get_property(packages GLOBAL PROPERTY cepe_packages)
list(TRANSFORM packages REPLACE "(.+)" "\"\\1\"")
list(JOIN packages " " packages)
cepe_torch_version("${torch_root}" torch_version)
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/cepeConfig.cmake.in" "${CMAKE_BINARY_DIR}/cepeConfig.cmake"
                              INSTALL_DESTINATION ${package_folder}
                              PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_DATADIR)
write_basic_package_version_file("${CMAKE_BINARY_DIR}/cepeConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_BINARY_DIR}/cepeConfig.cmake" "${CMAKE_BINARY_DIR}/cepeConfigVersion.cmake"
              "${PROJECT_SOURCE_DIR}/cmake/torch.cmake" DESTINATION ${package_folder})

if(CMAKE_BUILD_TYPE STREQUAL "Release")
  list(TRANSFORM installed_layers REPLACE "(.+)" "lib/libcepe_\\1.a" OUTPUT_VARIABLE stripped)
  list(APPEND stripped bin/cepe lib/libcepe_cuda.so)
  install(CODE "
    foreach(file IN ITEMS ${stripped})
      set(file \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/\${file}\")
      if(EXISTS \"\${file}\")
        execute_process(COMMAND \"${CMAKE_STRIP}\" --strip-debug \"\${file}\" COMMAND_ERROR_IS_FATAL ANY)
      endif()
    endforeach()")
endif()
