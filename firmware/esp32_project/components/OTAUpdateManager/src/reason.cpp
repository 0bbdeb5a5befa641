#include "ota/reason.hpp"

namespace ota {

const char* to_string(Reason reason) {
    switch (reason) {
#define OTA_CASE(name) \
    case Reason::name: \
        return #name;
        OTA_REASONS(OTA_CASE)
#undef OTA_CASE
    }
    return "unknown";
}

}  // namespace ota
