"""Checking in: `GET /devices/{mac}/update` of devices that are up to date, as a fleet's daily poll is."""

from __future__ import annotations

import random

from harness import Figure, medians, report
from lab import (
    CONTEXT,
    FLEETS,
    PRODUCT,
    connect_database,
    fill_with_devices,
    load_handler,
    mac_of,
    read_event,
    server_cpu_seconds,
)
from ota_core.check_in_store import MAX_DEVICES, STATEMENT

_CHECK_INS = 200


def main() -> None:
    handler = load_handler("check_for_update")
    database = connect_database()
    measured = [_measure(handler, database, devices) for devices in FLEETS]
    growth = measured[-1].more["postgresql_ms"] / measured[0].more["postgresql_ms"]
    report(
        *measured,
        Figure(
            row="check-in",
            what="ms of PostgreSQL's CPU per check-in, the largest fleet (floor: the smallest)",
            ours=measured[-1].more["postgresql_ms"],
            floor=measured[0].more["postgresql_ms"],
            ratio=growth,
            goal="flat",
            is_met=growth <= 1.5,
        ),
    )


def _measure(handler, database, devices: int) -> Figure:
    release = fill_with_devices(database, devices, "release_targets")
    choose = random.Random(devices)  # noqa: S311 - reproducible, not secret
    macs = [mac_of(choose.randrange(devices)) for _ in range(_CHECK_INS)]
    events = [event_of(mac, release["version"]) for mac in macs]

    def ours() -> None:
        for event in events:
            assert handler.lambda_handler(event, CONTEXT)["statusCode"] == 204

    statement = database.prepare(STATEMENT)

    def floor() -> None:
        for mac in macs:
            parameters = {"mac": mac, "product": PRODUCT, "running_version": release["version"]}
            assert statement.run(**parameters, max_devices=MAX_DEVICES)

    ours()
    begun = server_cpu_seconds(database)
    for _ in range(5):
        ours()
    of_server = (server_cpu_seconds(database) - begun) / 5 / _CHECK_INS
    found = medians(ours, floor, operations=_CHECK_INS)
    return Figure(
        row="check-in",
        what=f"check-ins per CPU-second, {devices:,} devices",
        ours=1 / found.ours,
        floor=1 / found.floor,
        ratio=found.ratio,
        goal="≤ 1.5 × floor",
        is_met=found.ratio <= 1.5,
        more={"postgresql_ms": of_server * 1000},
    )


def event_of(mac: str, version: str) -> dict[str, object]:
    event = read_event("check_for_update", "current_version")
    event["pathParameters"] = {"mac": mac}
    for name, value in (("product", PRODUCT), ("version", version)):
        event["queryStringParameters"][name] = value
        event["multiValueQueryStringParameters"][name] = [value]
    return event


if __name__ == "__main__":
    main()
