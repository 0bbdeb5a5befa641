# Writes trusted_keys.h from the PEM files in a folder: the public keys that may sign a release.
#
# embed_trusted_keys(<folder> <header>) stops the build if the folder has fewer than two keys (a device
# with one key cannot move to another when that one is lost), a private key, or a file that is not a
# public key. Also runs as a script, for tests:
#     cmake -DKEYS=<folder> -DHEADER=<file> -P trusted_keys.cmake

cmake_minimum_required(VERSION 3.16)

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
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${folder}" ${pem_files})
    endif()

    set(entries "")
    set(digests "")
    foreach(pem_file IN LISTS pem_files)
        file(READ "${pem_file}" pem)
        if(pem MATCHES "PRIVATE KEY")
            message(FATAL_ERROR
                "${pem_file} holds a private key, which would be readable in every image. Remove it and put "
                "the public one there: openssl rsa -in <private key> -pubout -out ${pem_file}")
        endif()
        if(NOT pem MATCHES "^-----BEGIN PUBLIC KEY-----")
            message(FATAL_ERROR
                "${pem_file} does not begin with \"-----BEGIN PUBLIC KEY-----\": expected a PEM SubjectPublicKeyInfo, "
                "as openssl rsa -pubout writes it.")
        endif()
        string(SHA256 digest "${pem}")
        if(digest IN_LIST digests)
            message(FATAL_ERROR "${pem_file} holds the same key as another file there: a reserve must be another key.")
        endif()
        list(APPEND digests ${digest})
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
