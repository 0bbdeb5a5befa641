# Writes trusted_keys.h from the PEM files in a folder: the public keys that may sign a release.
#
# embed_trusted_keys(<folder> <header>) stops the build if the folder has fewer than two keys (a device
# with one key cannot move to another when that one is lost), or a key that a device cannot use
# (trusted_keys.py). Also runs as a script, for tests:
#     cmake -DKEYS=<folder> -DHEADER=<file> -P trusted_keys.cmake

cmake_minimum_required(VERSION 3.18)
set(TRUSTED_KEYS_SCRIPT "${CMAKE_CURRENT_LIST_DIR}/trusted_keys.py")

function(embed_trusted_keys folder header)
    get_filename_component(folder "${folder}" ABSOLUTE)
    file(GLOB pem_files "${folder}/*.pem")
    list(LENGTH pem_files count)
    if(count LESS 2)
        message(FATAL_ERROR
            "Found ${count} public key(s) in ${folder}, expected at least two *.pem files: the key that "
            "signs releases and one in reserve, to rotate to. Make a pair with\n"
            "    openssl genrsa -out signing-key.pem 3072\n"
            "    openssl rsa -in signing-key.pem -pubout -out ${folder}/release.pem\n"
            "and keep signing-key.pem out of this folder.")
    endif()

    if(NOT CMAKE_SCRIPT_MODE_FILE)
        # A key that is added, changed or removed configures the build anew.
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
            "${folder}" ${pem_files} "${TRUSTED_KEYS_SCRIPT}")
    endif()

    # ESP-IDF's and PlatformIO's own Python is on PATH during a build.
    find_program(TRUSTED_KEYS_PYTHON NAMES python3 python REQUIRED)
    execute_process(
        COMMAND "${TRUSTED_KEYS_PYTHON}" "${TRUSTED_KEYS_SCRIPT}" ${pem_files}
        RESULT_VARIABLE status OUTPUT_VARIABLE found ERROR_VARIABLE reason OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(NOT status EQUAL 0)
        message(FATAL_ERROR "${reason}")
    endif()
    message(STATUS "${found}")

    set(entries "")
    foreach(pem_file IN LISTS pem_files)
        file(READ "${pem_file}" pem)
        string(APPEND entries "    R\"pem(${pem})pem\",\n")
    endforeach()

    file(CONFIGURE OUTPUT "${header}" @ONLY CONTENT
"// Generated from @folder@.
#pragma once

/// The public keys that may sign a release, PEM.
inline constexpr const char* kTrustedKeys[] = {
@entries@};
")
endfunction()

if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
    embed_trusted_keys("${KEYS}" "${HEADER}")
endif()
