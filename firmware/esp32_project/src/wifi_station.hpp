#pragma once

#include <string>

/// Joins the Wi-Fi network in the background and stays with it: a lost connection is tried again after
/// 1 s, doubling to 64 s, with jitter. The first connection also starts SNTP.
/// Needs nvs_flash_init() and the default event loop. Called once.
void start_wifi(const std::string& ssid, const std::string& password);
