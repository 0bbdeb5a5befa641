"""Checking in: `GET /devices/{mac}/update` of devices that are up to date, as in a fleet's daily poll."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

from harness import RUNS, Figure, medians, report
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
from ota_core.stores.check_in_store import STATEMENT
from ota_core.stores.known_devices import MAX_DEVICES

_CHECK_INS = 200
_SERVER_RUNS = 15


def main() -> None:
    handler = load_handler("check_for_update")
    database = connect_database()
    measured = [_measure(handler, database, devices) for devices in FLEETS]
    report(*measured, *_of_server([figure.more["postgresql_ms"] for figure in measured]))


def _of_server(milliseconds: list[float]) -> list[Figure]:
    """PostgreSQL's share for each fleet; the floor is the smallest fleet's."""
    figures = [
        Figure(
            row="check-in",
            what=f"ms of PostgreSQL's CPU per check-in, {devices:,} devices (floor: {FLEETS[0]:,})",
            ours=cost,
            floor=milliseconds[0],
            ratio=cost / milliseconds[0],
        )
        for devices, cost in zip(FLEETS[1:], milliseconds[1:], strict=True)
    ]
    largest = figures.pop()
    return [*figures, replace(largest, goal="flat (≤ 1.5)", is_met=largest.ratio <= 1.5)]


def _measure(handler, database, devices: int) -> Figure:
    release = fill_with_devices(database, devices, "release_targets")
    # Each run polls devices that no run before it has, as far as the fleet goes, spread over all of it: no run finds
    # rows and index pages cached by the one before, and each update is the row's first.
    order = list(range(devices))
    random.Random(devices).shuffle(order)  # noqa: S311 - reproducible, not secret
    macs = map(mac_of, itertools.cycle(order))
    polls = _an_hour_apart(
        database,
        devices,
        [
            [(mac, event_of(mac, release["version"])) for mac in itertools.islice(macs, _CHECK_INS)]
            for _ in range(1 + _SERVER_RUNS + 2 * (1 + RUNS))
        ],
    )

    def ours() -> None:
        for _, event in next(polls):
            assert handler.lambda_handler(event, CONTEXT)["statusCode"] == 204

    statement = database.prepare(STATEMENT)

    def floor() -> None:
        for mac, _ in next(polls):
            parameters = {
                "mac": mac,
                "product": PRODUCT,
                "chip": release["chip"],
                "running_version": release["version"],
            }
            assert statement.run(**parameters, max_devices=MAX_DEVICES)

    updates = _updates(database)
    ours()
    begun = server_cpu_seconds(database)
    for _ in range(_SERVER_RUNS):
        ours()
    of_server = (server_cpu_seconds(database) - begun) / _SERVER_RUNS / _CHECK_INS
    found = medians(ours, floor, operations=_CHECK_INS)
    all_updates, in_place = (after - before for after, before in zip(_updates(database), updates, strict=True))
    return Figure(
        row="check-in",
        what=f"check-ins per CPU-second, {devices:,} devices",
        ours=1 / found.ours,
        floor=1 / found.floor,
        ratio=found.ratio,
        goal="≤ 1.5 × floor",
        is_met=found.ratio <= 1.5,
        more={"postgresql_ms": of_server * 1000, "share_of_hot_updates": in_place / all_updates},
    )


def _an_hour_apart(
    database, devices: int, polls: list[list[tuple[str, dict[str, object]]]]
) -> Iterator[list[tuple[str, dict[str, object]]]]:
    """The polls; when the fleet begins again, an hour has passed. Within a minute nothing would be recorded."""
    for number, poll in enumerate(polls):
        if number and number * _CHECK_INS % devices == 0:
            database.run("UPDATE devices SET last_seen_at = now() - interval '1 hour'")
        yield poll


def _updates(database) -> list[int]:
    """Updates of devices so far, and how many touched no index (HOT), as far as PostgreSQL has counted."""
    [counts] = database.run("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'devices'")
    return counts


def event_of(mac: str, version: str) -> dict[str, object]:
    event = read_event("check_for_update", "current_version")
    event["pathParameters"] = {"mac": mac}
    for name, value in (("product", PRODUCT), ("chip", "esp32"), ("version", version)):
        event["queryStringParameters"][name] = value
        event["multiValueQueryStringParameters"][name] = [value]
    return event


if __name__ == "__main__":
    main()
