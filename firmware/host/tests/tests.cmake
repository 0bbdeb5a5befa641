enable_testing()

set(OTA_VECTORS ${CMAKE_CURRENT_SOURCE_DIR}/../../tests/vectors)

add_library(ota_test_support STATIC
    tests/broker.cpp tests/child_process.cpp tests/fake_world.cpp tests/release_builder.cpp tests/signing_key.cpp)
target_include_directories(ota_test_support PUBLIC tests)
target_link_libraries(ota_test_support PUBLIC ota_sanitized GTest::gtest PRIVATE ota_warnings)

# One program and one ctest entry per file. The sweeps print their figures.
function(add_ota_test name)
    add_executable(${name} tests/${name}.cpp)
    target_link_libraries(${name} PRIVATE ota_test_support GTest::gtest_main ota_warnings)
    target_compile_definitions(${name} PRIVATE
        OTA_VECTORS="${OTA_VECTORS}"
        OTA_FIRMWARE="${CMAKE_CURRENT_SOURCE_DIR}/.."
        OTA_DEVICE="$<TARGET_FILE:ota_device>")
    add_test(NAME ${name} COMMAND ${name})
endfunction()

add_ota_test(test_formats)
add_ota_test(test_verification)
add_ota_test(test_update)
add_ota_test(test_attacks)
add_ota_test(test_power_cut)
add_ota_test(test_link_cut)
add_ota_test(test_posix_storage)
add_ota_test(test_http_client)
add_ota_test(test_mqtt_client)
add_ota_test(test_ota_device)
add_dependencies(test_ota_device ota_device)

# The benchmark of a device's update. Also without sanitizers, because they cost CPU time.
add_executable(bench_device ../../bench/device.cpp tests/fake_world.cpp tests/release_builder.cpp tests/signing_key.cpp)
target_include_directories(bench_device PRIVATE tests)
target_link_libraries(bench_device PRIVATE ota_plain GTest::gtest ota_warnings)

# Counts what malloc allocates, so it is built without sanitizers, which replace malloc.
add_executable(test_heap tests/test_heap.cpp tests/fake_world.cpp tests/release_builder.cpp tests/signing_key.cpp)
target_include_directories(test_heap PRIVATE tests)
target_link_libraries(test_heap PRIVATE ota_plain GTest::gtest GTest::gtest_main ota_warnings)
add_test(NAME test_heap COMMAND test_heap)
