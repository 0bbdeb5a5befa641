#pragma once

namespace ota::posix {

/// The arguments of main(), with which system_reboot() starts this program again: as on the chip, a
/// restart loses everything but the flash.
extern char* const* reboot_arguments;

}  // namespace ota::posix
