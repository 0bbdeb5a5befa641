"""The devices that PostgreSQL knows: how many are recorded, which of them a release reached, and who has a vote on it.

Parts of statements, which the stores complete.
"""

from __future__ import annotations

# Anyone with the API key can fake devices, and who can make certificates can make more. A fake one gets an answer, but
# beyond this many devices (five times the fleet that the project is built for, half a GiB) no new one is recorded.
MAX_DEVICES = 5_000_000
# A device that was not seen for this long is not part of the fleet that a wave is expected to reach.
FLEET_MEMORY_DAYS = 30

# Whether another device is recorded. Reading the planner's estimate costs nothing.
HAS_ROOM = "(SELECT reltuples FROM pg_class WHERE oid = CAST('devices' AS regclass)) < CAST(:max_devices AS real)"

# Whether the device's certificate shows that it is of the release's line (product and chip), and that it was no other's
# after the release was registered: one device has one vote, in one line at a time. NULL: it never spoke for a line.
_IS_OF_LINE = (
    "((devices.proven_product, devices.proven_chip) = (releases.product, releases.chip)"
    " AND devices.proven_since <= releases.registered_at)"
)
# The devices that a release to the whole fleet is for. Anyone with the API key can name a product and a chip for a
# device, but not for one whose certificate shows another line.
IN_FLEET = (
    "devices.product = releases.product AND coalesce(devices.chip = releases.chip, true)"
    f" AND devices.last_seen_at > now() - interval '{FLEET_MEMORY_DAYS:d} days' AND coalesce({_IS_OF_LINE}, true)"
)
# The devices that a release's waves have reached, and in `said` the rows of device_states that count. What a device
# began to install, it has to finish: no check-in in its name takes it out.
_REACHED_IN_FLEET = f"""
FROM releases CROSS JOIN devices
    LEFT JOIN device_states AS said ON said.release = releases.id AND said.mac = devices.mac AND {_IS_OF_LINE}
WHERE releases.id = :release AND in_cohort(releases.release_id, devices.mac, releases.cohort_percent)
    AND (said.mac IS NOT NULL OR {IN_FLEET})
"""
# Their release names them, so one that never spoke for a line has a vote, too.
_REACHED_IN_LIST = f"""
FROM releases JOIN release_targets AS listed ON listed.release = releases.id
    LEFT JOIN devices ON devices.mac = listed.mac
    LEFT JOIN device_states AS said ON said.release = releases.id AND said.mac = listed.mac
WHERE releases.id = :release AND in_cohort(releases.release_id, listed.mac, releases.cohort_percent)
    AND coalesce({_IS_OF_LINE}, true)
"""


def reached(*, is_for_whole_fleet: bool) -> str:
    """FROM and WHERE of a statement about `:release`: the devices that it reached, and as `said` what counts of it."""
    return _REACHED_IN_FLEET if is_for_whole_fleet else _REACHED_IN_LIST


def votes(*, is_for_whole_fleet: bool) -> str:
    """The rows of device_states that count for `:release`, in parentheses."""
    return f"(SELECT said.* {reached(is_for_whole_fleet=is_for_whole_fleet)} AND said.mac IS NOT NULL)"
