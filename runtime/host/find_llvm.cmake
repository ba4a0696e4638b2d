# Finds LLVM (shared library and headers) and the clang of the same major version that compiles
# kernels/host to bitcode. Sets SPION_LLVM_MAJOR, SPION_CLANG and the target spion_llvm.
enable_language(C)  # LLVM's package looks for libffi with C checks
# LLVM's package accepts a request for its own major.minor only.
set(SPION_LLVM_VERSIONS 19.1 20.1 18.1 17.0 16.0 CACHE STRING "Versions of LLVM to try, in order")
foreach(version IN LISTS SPION_LLVM_VERSIONS)
    find_package(LLVM ${version} CONFIG QUIET)
    if(LLVM_FOUND)
        break()
    endif()
endforeach()
if(NOT LLVM_FOUND)
    message(FATAL_ERROR "The host back end needs LLVM 16 to 20 (Debian, Ubuntu: llvm-19-dev "
                        "clang-19); install it, or configure with -DSPION_HOST_BACKEND=OFF")
endif()
set(SPION_LLVM_MAJOR ${LLVM_VERSION_MAJOR})

find_program(SPION_CLANG NAMES clang++-${SPION_LLVM_MAJOR} clang++
             HINTS ${LLVM_TOOLS_BINARY_DIR} NO_DEFAULT_PATH)
find_program(SPION_CLANG NAMES clang++-${SPION_LLVM_MAJOR})
if(NOT SPION_CLANG)
    message(FATAL_ERROR "The host back end needs the clang of LLVM ${LLVM_PACKAGE_VERSION} (Debian, "
                        "Ubuntu: clang-${SPION_LLVM_MAJOR}); install it, or configure with "
                        "-DSPION_HOST_BACKEND=OFF")
endif()

add_library(spion_llvm INTERFACE)
target_include_directories(spion_llvm SYSTEM INTERFACE ${LLVM_INCLUDE_DIRS})
separate_arguments(llvm_definitions NATIVE_COMMAND "${LLVM_DEFINITIONS}")
target_compile_definitions(spion_llvm INTERFACE ${llvm_definitions})
llvm_map_components_to_libnames(llvm_archives bitreader bitwriter asmparser linker ipo passes
                                orcjit native)
# Whoever links it and sets the property SPION_STATIC_LLVM gets the archives, so that a library of
# ours carries its own LLVM, hidden (api/CMakeLists.txt); the others the shared library where LLVM
# has one, which links in a moment.
set(static_llvm OFF)
find_library(SPION_LLVM_ARCHIVE NAMES libLLVMOrcJIT.a HINTS ${LLVM_LIBRARY_DIRS} NO_DEFAULT_PATH)
if(SPION_LLVM_ARCHIVE AND (TARGET zstd::libzstd_shared OR NOT LLVM_ENABLE_ZSTD))
    set(static_llvm ON)
endif()
option(SPION_STATIC_LLVM "Link LLVM's archives into libspion.so (Debian, Ubuntu: libzstd-dev)"
       ${static_llvm})
if(NOT SPION_STATIC_LLVM)
    message(STATUS "libspion.so will need libLLVM.so: install libzstd-dev for one of its own")
endif()
if(LLVM_LINK_LLVM_DYLIB AND SPION_STATIC_LLVM)
    set(use_archives $<BOOL:$<TARGET_PROPERTY:SPION_STATIC_LLVM>>)
    target_link_libraries(spion_llvm INTERFACE "$<${use_archives}:${llvm_archives}>"
                                               "$<$<NOT:${use_archives}>:LLVM>")
elseif(LLVM_LINK_LLVM_DYLIB)
    target_link_libraries(spion_llvm INTERFACE LLVM)
else()
    target_link_libraries(spion_llvm INTERFACE ${llvm_archives})
endif()

message(STATUS "Host back end: LLVM ${LLVM_PACKAGE_VERSION}, ${SPION_CLANG}")
