"""Recording what devices say: batches, as Lambda reads them from the queue."""

from __future__ import annotations

import base64
import json
import random
import time

from harness import RUNS, Figure, medians, report
from lab import CONTEXT, FLEETS, connect_database, fill_with_devices, insert_release, load_handler, mac_of

_BATCH = 100  # as in the template
_BATCHES = 5
_UPSERT = """
INSERT INTO device_states (release, mac, state, progress, running_version, updated_at)
SELECT :release, mac, state, progress, running_version, updated_at
FROM unnest(
    CAST(:macs AS macaddr[]), CAST(:states AS text[]), CAST(:progress AS smallint[]),
    CAST(:running_versions AS text[]), CAST(:moments AS timestamptz[])
) AS messages (mac, state, progress, running_version, updated_at)
ON CONFLICT (release, mac) DO UPDATE SET
    state = EXCLUDED.state, progress = EXCLUDED.progress, running_version = EXCLUDED.running_version,
    updated_at = EXCLUDED.updated_at
"""


def main() -> None:
    handler = load_handler("record_status")
    database = connect_database()
    report(*(_measure(handler, database, devices) for devices in FLEETS))


def _measure(handler, database, devices: int) -> Figure:
    fill_with_devices(database, devices, "device_states", "device_history")
    choose = random.Random(devices)  # noqa: S311 - reproducible, not secret
    chosen = [mac_of(number) for number in choose.sample(range(devices), _BATCH * _BATCHES)]
    fleets = [chosen[first : first + _BATCH] for first in range(0, len(chosen), _BATCH)]
    # Each run is about a new release: what was said before would not be news.
    runs = iter([[_event(macs, release) for macs in fleets] for release in _releases(database)])
    floors = iter(_releases(database))

    def ours() -> None:
        for event in next(runs):
            assert handler.lambda_handler(event, CONTEXT) == {"batchItemFailures": []}

    def floor() -> None:
        release = next(floors)
        for macs in fleets:
            database.run(
                _UPSERT,
                release=release["id"],
                macs=macs,
                states=["installed"] * _BATCH,
                progress=[100] * _BATCH,
                running_versions=["1.0.1"] * _BATCH,
                moments=["2026-01-01T00:00:00Z"] * _BATCH,
            )

    found = medians(ours, floor, operations=_BATCH * _BATCHES)
    return Figure(
        row="status",
        what=f"statuses recorded per CPU-second, {devices:,} devices",
        ours=1 / found.ours,
        floor=1 / found.floor,
        ratio=found.ratio,
        goal="≤ 2 × floor",
        is_met=found.ratio <= 2,
    )


def _releases(database) -> list[dict[str, object]]:
    return [insert_release(database) for _ in range(RUNS + 1)]


def _event(macs: list[str], release: dict[str, object]) -> dict[str, object]:
    """What SQS passes to Lambda: the IoT rule's messages."""
    status = {"release_id": release["release_id"], "version": "1.0.1", "state": "installed", "progress": 100}
    payload = base64.b64encode(json.dumps(status | {"running_version": "1.0.1"}).encode()).decode()
    now = time.time_ns() // 1_000_000
    return {
        "Records": [
            {
                "messageId": f"{number}",
                "body": json.dumps(
                    {"topic": f"/firmware_update/{mac}/status", "payload": payload, "received_at": now + number}
                ),
                "attributes": {"SentTimestamp": str(now)},
            }
            for number, mac in enumerate(macs)
        ]
    }


if __name__ == "__main__":
    main()
