# What is installed, exported and packed: the library with its headers and CMake package (component
# spion_library), the command (spion_command), and the licences of what is inside both.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS spion_library EXPORT spion COMPONENT spion_library
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/spion DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        COMPONENT spion_library)
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/spion)
install(EXPORT spion NAMESPACE spion:: FILE spion-targets.cmake DESTINATION ${package_folder}
        COMPONENT spion_library)
configure_package_config_file(${PROJECT_SOURCE_DIR}/api/spion-config.cmake.in
                              ${CMAKE_CURRENT_BINARY_DIR}/spion-config.cmake
                              INSTALL_DESTINATION ${package_folder})
# Below 1.0 a minor version may change the interface.
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/spion-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/spion-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/spion-config-version.cmake
        DESTINATION ${package_folder} COMPONENT spion_library)

# Debian keeps each package's licence beside its documentation; elsewhere name the files.
set(SPION_NOTICES "" CACHE STRING "Licence files of what is linked in (a list); found on Debian")
set(notices ${SPION_NOTICES})
if(NOT notices)
    set(packages libfmt-dev nlohmann-json3-dev)
    if(SPION_HOST_BACKEND)
        list(APPEND packages llvm-${SPION_LLVM_MAJOR}-dev)
    endif()
    if(SPION_BUILD_COMMAND)  # headers that the command is made with
        list(APPEND packages libcli11-dev libtomlplusplus-dev)
    endif()
    foreach(package IN LISTS packages)
        if(EXISTS /usr/share/doc/${package}/copyright)
            list(APPEND notices /usr/share/doc/${package}/copyright)
        endif()
    endforeach()
endif()
foreach(notice IN LISTS notices)
    # .../libfmt-dev/copyright is installed as libfmt-dev.txt
    cmake_path(GET notice PARENT_PATH folder)
    cmake_path(GET folder FILENAME name)
    install(FILES ${notice} DESTINATION ${CMAKE_INSTALL_DOCDIR}/third-party RENAME ${name}.txt
            COMPONENT spion_library)
endforeach()

if(SPION_BUILD_COMMAND)
    install(TARGETS spion COMPONENT spion_command RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

if(PROJECT_IS_TOP_LEVEL)
    set(CPACK_GENERATOR TGZ DEB)
    set(CPACK_PACKAGE_NAME spion)
    set(CPACK_PACKAGE_VENDOR "the authors of spion")
    set(CPACK_PACKAGE_CONTACT "the authors of spion <spion@invalid>")
    set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "JIT compiler for block-sparse attention")
    set(CPACK_STRIP_FILES ON)
    set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
    set(CPACK_DEBIAN_PACKAGE_SECTION libs)
    include(CPack)
endif()
