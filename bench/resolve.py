"""Resolving: listed devices recorded in PostgreSQL and cut into batches of messages, as one wave."""

from __future__ import annotations

import hashlib
import os
import resource
import time

import boto3
from cryptography.hazmat.primitives.asymmetric import rsa
from harness import Figure, medians, report
from lab import CONTEXT, connect_database, insert_release, load_handler, mac_of
from validate import make_envelope

_LISTED = (1_000, 10_000, 100_000, 1_000_000)
_MEMORY_MIB = 256


def main() -> None:
    handler = load_handler("resolve_targets")
    database = connect_database()
    database.run("TRUNCATE release_targets")
    key = rsa.generate_private_key(65537, 2048)
    figures = [_measure(handler, database, key, listed) for listed in _LISTED]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    growth = figures[-1].ours / figures[-2].ours
    report(
        *figures,
        Figure(
            row="resolve",
            what="growth of the time from 10⁵ to 10⁶ devices",
            ours=growth,
            goal="linear (≤ 12)",
            is_met=growth <= 12,
        ),
        Figure(
            row="resolve",
            what="MiB of memory at its peak, 10⁶ devices, the process with its imports",
            ours=peak,
            goal=f"≤ {_MEMORY_MIB} MiB",
            is_met=peak <= _MEMORY_MIB,
        ),
    )


def _measure(handler, database, key: rsa.RSAPrivateKey, listed: int) -> Figure:
    lines = "".join(f"{mac_of(number)}\n" for number in range(listed)).encode()
    targets = {"file_sha256": hashlib.sha256(lines).hexdigest(), "count": listed}
    target_key = f"batches/bench/{os.getpid()}-{listed}.txt"
    stored = boto3.client("s3").put_object(Bucket=os.environ["BUCKET"], Key=target_key, Body=lines)
    release = insert_release(
        database,
        envelope=make_envelope(b"image", key, targets=targets).decode(),
        targets_key=target_key,
        targets_version_id=stored["VersionId"],
        target_count=listed,
        state="registered",
        cohort_percent=0.0,
    )
    event = {"release_id": release["release_id"], "execution": "e", "wave": 1, "percent": 100, "earlier_percent": 0}

    def ours() -> None:
        database.run("TRUNCATE release_targets")
        assert handler.lambda_handler(event, CONTEXT)["messages"] == listed

    def floor() -> None:
        database.run("TRUNCATE release_targets")
        column = b"%d\t" % release["id"]
        rows = (column + line for line in lines.splitlines(keepends=True))
        database.run("COPY release_targets (release, mac) FROM STDIN", stream=rows)

    # A run of the largest takes a minute or more, and the smaller ones have warmed everything up.
    runs = 1 if listed == _LISTED[-1] else 3
    found = medians(ours, floor, runs=runs, clock=time.monotonic, warms_up=listed == _LISTED[0])
    return Figure(
        row="resolve",
        what=f"s for {listed:,} listed devices",
        ours=found.ours,
        floor=found.floor,
        ratio=found.ratio,
        goal="≤ 3 × floor" if listed == _LISTED[-1] else "",
        is_met=found.ratio <= 3 if listed == _LISTED[-1] else None,
    )


if __name__ == "__main__":
    main()
