#pragma once

#include <cstdint>

#include "ota/update_config.hpp"

namespace ota {

/// Owns the rule for waiting: delays that double with every failure, and the randomness that keeps a fleet
/// from acting all at once.
class BackOff {
public:
    BackOff(const UpdateConfig& config, RandomSource& random) : config_(config), random_(random) {}

    /// Milliseconds to wait after this many failures. Starts with the first back-off and doubles with
    /// every failure, up to the limit. Up to a quarter is added at random, so that devices that lost the
    /// same server do not all return at once.
    [[nodiscard]] std::uint32_t delay_ms(std::uint32_t failures);

    /// Uniform, and below `limit`; 0 for 0.
    [[nodiscard]] std::uint32_t random_up_to(std::uint32_t limit);

private:
    const UpdateConfig& config_;
    RandomSource& random_;
};

}  // namespace ota
