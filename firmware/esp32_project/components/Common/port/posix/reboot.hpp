#pragma once

namespace ota::posix {

/// Arguments with which system_reboot() starts this program again, as main() got them: a restart loses
/// everything but the flash file, as on the chip.
extern char* const* reboot_arguments;

}  // namespace ota::posix
