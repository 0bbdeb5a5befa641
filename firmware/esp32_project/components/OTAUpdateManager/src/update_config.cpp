#include "ota/update_config.hpp"

namespace ota {

UpdateTopics::UpdateTopics(std::string_view prefix, std::string_view product_name, const MacAddress& mac)
    : fleet(prefix), product(prefix), device(prefix) {
    product.append("/product/").append(product_name);
    device.append("/").append(format_mac(mac));
    status = device + "/status";
}

}  // namespace ota
