"""Compared with gooseBit, a hawkBit-compatible update server: polls and downloaded bytes per CPU-second of a process.

Ours runs under the Runtime Interface Emulator. Only the function's process counts; the emulator stands in for AWS's
service, and its share is in the JSON. gooseBit's single process counts as a whole, including its HTTP server.
"""

from __future__ import annotations

import http.client
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from check_in import event_of as check_in_event
from cold_start import Runtime, built
from deliver import chunk_event
from harness import Figure, report
from lab import IMAGE_BYTES, PROJECT, connect_database, fill_with_devices, insert_image, mac_of
from local_cloud.processes import free_port

_DEVICES = 100_000
_POLLS = 300
_DOWNLOADS = 40
# The client chooses; up to 4,500,000 bytes go through the function.
_CHUNK_KIB = (64, 256, 1024)


def main() -> None:
    image = os.urandom(IMAGE_BYTES)
    polls, polls_with_emulator = _our_polls()
    downloads = _our_downloads(image)
    peer_polls, peer_rate = _goosebits(image)
    report(
        Figure(
            row="peer: polls",
            what=f"per CPU-second, {_DEVICES:,} devices",
            ours=polls,
            goal="≥ 5 × gooseBit",
            is_met=polls >= 5 * peer_polls,
            peer=f"gooseBit {peer_polls:,.0f}; ours is {polls / peer_polls:.1f} ×",
            more={"with_emulator": polls_with_emulator, "goosebit": peer_polls},
        ),
        *(
            Figure(
                row="peer: downloads",
                what=f"MB per CPU-second, ours in chunks of {kib:,} KiB, gooseBit whole",
                ours=rate / 1e6,
                # The firmware requests 64 KiB at a time.
                goal="≥ 2 × gooseBit" if kib == 64 else "",
                is_met=rate >= 2 * peer_rate if kib == 64 else None,
                peer=f"gooseBit {peer_rate / 1e6:,.0f}; ours is {rate / peer_rate:.1f} ×",
                more={"with_emulator": with_emulator / 1e6, "goosebit": peer_rate / 1e6},
            )
            for kib, (rate, with_emulator) in downloads.items()
        ),
    )


def _our_polls() -> tuple[float, float]:
    """Per CPU-second of the function alone, and with the emulator."""
    latest = fill_with_devices(connect_database(), _DEVICES, "release_targets")
    events = [check_in_event(mac_of(number), latest["version"]) for number in _some_devices()]
    with Runtime(*built("CheckForUpdate")) as runtime:

        def poll() -> None:
            for event in events:
                runtime.invoke(event)

        return _rates(runtime, poll, _POLLS)


def _our_downloads(image: bytes) -> dict[int, tuple[float, float]]:
    """Bytes per CPU-second of the function alone, and with the emulator, by the KiB of a chunk."""
    release = insert_image(connect_database(), image)
    found = {}
    with Runtime(*built("DeliverFirmware")) as runtime:
        for kib in _CHUNK_KIB:
            chunks = [chunk_event(release, number, kib * 1024) for number in range(-(-len(image) // (kib * 1024)))]

            def download(chunks: list[dict[str, object]] = chunks) -> None:
                for _ in range(_DOWNLOADS):
                    for chunk in chunks:
                        runtime.invoke(chunk)

            found[kib] = _rates(runtime, download, _DOWNLOADS * len(image))
    return found


def _goosebits(image: bytes) -> tuple[float, float]:
    database = connect_database()
    database.run("DROP SCHEMA IF EXISTS goosebit CASCADE")
    database.run("CREATE SCHEMA goosebit")
    database.run("ALTER ROLE ota SET search_path = goosebit")
    with tempfile.TemporaryDirectory() as folder:
        ca, file = Path(folder) / "ca.pem", Path(folder) / "image.bin"
        ca.write_text(os.environ["DATABASE_CA_PEM"])
        file.write_bytes(image)
        port = free_port()
        uri = os.environ["DATABASE_URL"].partition("?")[0].replace("postgresql://", "postgres://")
        server = subprocess.Popen(
            [
                PROJECT / ".venv-goosebit" / "bin" / "python",
                Path(__file__).with_name("goosebit_server.py"),
                *(str(port), str(_DEVICES), file),
            ],
            env=os.environ
            | {"GOOSEBIT_DB_URI": uri, "GOOSEBIT_DB_SSL_CRT": str(ca)}
            | {"GOOSEBIT_ARTIFACTS_DIR": folder},
            cwd=folder,
        )
        try:
            connection = _connect(port, server)
            # Up to date, as ours are.
            paths = [f"/DEFAULT/controller/v1/device-{number // 2 * 2}" for number in _some_devices()]

            def poll() -> None:
                for path in paths:
                    _get(connection, path)

            polls = _POLLS / _cpu_seconds(server.pid, poll)

            def download() -> None:
                for _ in range(_DOWNLOADS):
                    assert len(_get(connection, "/DEFAULT/controller/v1/device-1/download")) == len(image)

            return polls, _DOWNLOADS * len(image) / _cpu_seconds(server.pid, download)
        finally:
            server.terminate()
            server.wait()
            database.run("ALTER ROLE ota RESET search_path")


def _some_devices() -> list[int]:
    choose = random.Random(1)  # noqa: S311 - reproducible, not secret
    return [choose.randrange(_DEVICES) for _ in range(_POLLS)]


def _connect(port: int, server: subprocess.Popen[bytes]) -> http.client.HTTPConnection:
    deadline = time.monotonic() + 120
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.connect()
        except ConnectionError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return connection


def _get(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content
    return content


def _rates(runtime: Runtime, work: Callable[[], None], amount: int) -> tuple[float, float]:
    work()
    [function] = psutil.Process(runtime.pid).children()
    pids = (function.pid, runtime.pid)
    before = [_cpu(pid) for pid in pids]
    work()
    alone, emulator = (_cpu(pid) - begun for pid, begun in zip(pids, before, strict=True))
    return amount / alone, amount / (alone + emulator)


def _cpu_seconds(pid: int, work: Callable[[], None]) -> float:
    """CPU that a process spends on the second of two runs."""
    work()
    before = _cpu(pid)
    work()
    return _cpu(pid) - before


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
