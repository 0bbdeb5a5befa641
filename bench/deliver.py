"""Delivering: a warm 64 KiB chunk of an image, in the handler, as API Gateway requests it."""

from __future__ import annotations

import base64
import os
from typing import Any

from harness import Figure, medians, report
from lab import CONTEXT, IMAGE_BYTES, PRODUCT, connect_database, insert_image, load_handler, read_event

_CHUNK_BYTES = 64 * 1024
_CHUNKS = 300


def main() -> None:
    handler = load_handler("deliver_firmware")
    content = os.urandom(IMAGE_BYTES)
    release = insert_image(connect_database(), content)
    events = [chunk_event(release, number % (IMAGE_BYTES // _CHUNK_BYTES)) for number in range(_CHUNKS)]

    def ours() -> None:
        for event in events:
            answer = handler.lambda_handler(event, CONTEXT)
            assert answer["statusCode"] == 206

    def floor() -> None:
        for number in range(_CHUNKS):
            first = number % (IMAGE_BYTES // _CHUNK_BYTES) * _CHUNK_BYTES
            base64.b64encode(memoryview(content)[first : first + _CHUNK_BYTES]).decode()

    found = medians(ours, floor, operations=_CHUNKS)
    report(
        Figure(
            row="deliver",
            what="ms of CPU per warm 64 KiB chunk",
            ours=found.ours * 1000,
            floor=found.floor * 1000,
            ratio=found.ratio,
            goal="≤ 2 × floor",
            is_met=found.ratio <= 2,
            more={"chunks_per_cpu_second": 1 / found.ours},
        )
    )


def chunk_event(release: dict[str, Any], number: int, chunk_bytes: int = _CHUNK_BYTES) -> dict[str, object]:
    """A device's request for a chunk of a release's image."""
    first = number * chunk_bytes
    event = read_event("deliver_firmware", "chunk")
    event["pathParameters"] = {"product": PRODUCT, "version": release["version"]}
    event["queryStringParameters"]["release"] = release["release_id"]
    event["multiValueHeaders"]["Range"] = [f"bytes={first}-{first + chunk_bytes - 1}"]
    return event


if __name__ == "__main__":
    main()
