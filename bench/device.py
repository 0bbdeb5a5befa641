"""A device: heap, CPU and bytes of a whole update with the firmware's code, built for this machine."""

from __future__ import annotations

import contextlib
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from harness import RUNS, Figure, report
from lab import IMAGE_BYTES, PROJECT

_BUILD = PROJECT / "build" / "host"
_HEAP_LIMIT = 24 * 1024


def main() -> None:
    if subprocess.run(["make", "--no-print-directory", "-C", PROJECT, "build-firmware"], check=False).returncode:
        sys.exit("bench: device: the firmware does not build")
    report(_heap(), _cpu(), *(_bytes(cuts) for cuts in (0, 5, 20)))


def _heap() -> Figure:
    """The worst case, measured by the test that enforces the limit."""
    printed = _output(_BUILD / "test_heap", "--gtest_filter=Heap.*")
    stages = re.findall(r"(at rest|checking in|deciding|downloading|both at once|activating) (\d+)", printed)
    bytes_in_stage = {stage: int(size) for stage, size in stages}
    peak = max(bytes_in_stage.values())
    return Figure(
        row="device",
        what="KiB of heap at its peak, beyond TLS",
        ours=peak / 1024,
        goal="≤ 24 KiB",
        is_met=peak <= _HEAP_LIMIT,
        more={"bytes_in_stage": bytes_in_stage},
    )


def _cpu() -> Figure:
    updates = _update(RUNS, [])[0]
    return Figure(
        row="device",
        what="ms of CPU for an update of 1.9 MB",
        ours=statistics.median(update["ours"] for update in updates) * 1000,
        floor=statistics.median(update["floor"] for update in updates) * 1000,
        ratio=statistics.median(update["ours"] / update["floor"] for update in updates),
    )


def _bytes(cuts: int) -> Figure:
    places = sorted(random.Random(cuts).sample(range(1, IMAGE_BYTES), cuts))  # noqa: S311
    _, sent = _update(1, places)
    has_goal = cuts == 5
    return Figure(
        row="device",
        what=f"bytes fetched ÷ image size, {cuts} cuts",
        ours=sent / IMAGE_BYTES,
        floor=1,
        ratio=sent / IMAGE_BYTES,
        goal="≤ 1.05 × image" if has_goal else "",
        is_met=sent <= 1.05 * IMAGE_BYTES if has_goal else None,
        more={"cut_at": places},
    )


def _update(updates: int, cut_at: list[int]) -> tuple[list[dict[str, float]], int]:
    """CPU seconds of each update and of its floor, and the total bytes of the image that the server sent."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.bin"
        with _server(image, cut_at) as url:
            lines = _output(_BUILD / "bench_device", url, image, str(updates)).splitlines()
            with urllib.request.urlopen(f"{url}/image-bytes") as answer:  # noqa: S310
                sent, cuts = map(int, answer.read().split())
    if cuts != len(cut_at):
        sys.exit(f"bench: device: {cuts} of {len(cut_at)} cuts happened; expected all")
    return [json.loads(line) for line in lines], sent


@contextlib.contextmanager
def _server(image: Path, cut_at: list[int]) -> Iterator[str]:
    """The server from the firmware's tests; it exits when its standard input closes."""
    program = PROJECT / "firmware" / "host" / "tests" / "http_server.py"
    command = [sys.executable, program, image, "--cut-at", *map(str, cut_at)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
