#pragma once

#include <string>

/// Joins the Wi-Fi network in the background, and rejoins it when the connection is lost: after 1 s,
/// doubling up to 64 s, with jitter. The first connection also starts SNTP.
/// Needs nvs_flash_init() and the default event loop. Call once.
void start_wifi(const std::string& ssid, const std::string& password);
