"""Cold start: how long each function's artifact takes to get ready under the Runtime Interface Emulator."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from importlib.metadata import distribution
from pathlib import Path

from harness import Figure, report
from lab import PROJECT
from local_cloud.processes import free_port

# The AWS clients that each function creates.
_DATABASE = ("secretsmanager",)
_FUNCTIONS = {
    "DeliverFirmware": (*_DATABASE, "s3"),
    "CheckForUpdate": _DATABASE,
    "RecordStatus": _DATABASE,
    "ValidateSignature": ("s3", "ssm"),
    "RegisterMetadata": _DATABASE,
    "ResolveTargets": (*_DATABASE, "s3"),
    "PublishMqtt": ("s3",),
    "AdvanceRollout": _DATABASE,
    "SettleDrop": ("s3",),
    "AuthorizeOperator": ("lambda", "stepfunctions", "s3"),
    "OperateReleases": _DATABASE,
    "AnnounceFailure": ("events", "sns"),
    "CheckConsistency": (*_DATABASE, "s3"),
    "MigrateDatabase": _DATABASE,
    "ServeConsole": (),
}
_RUNS = 3
_INIT = re.compile(r"INIT REPORT\(durationMs: ([\d.]+)\)")
_ARCHITECTURE = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"


class Runtime:
    """A function in its own process, as Lambda would run it. Use it as a context manager."""

    def __init__(self, folder: Path, layer: Path | None) -> None:
        self._folder = folder
        self._port = free_port()
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._layer = layer

    def __enter__(self):
        emulator = distribution("aws-sam-cli").locate_file(f"samcli/local/rapid/aws-lambda-rie-{_ARCHITECTURE}")
        self._process = subprocess.Popen(
            [
                emulator,
                *("--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"),
                *("--runtime-api-address", f"127.0.0.1:{self._other_port()}"),
                *(PROJECT / ".venv-bench" / "bin" / "python", "-m", "awslambdaric", "handler.lambda_handler"),
            ],
            cwd=self._folder,
            env=os.environ | ({"PYTHONPATH": str(self._layer)} if self._layer else {}),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        self._log.close()

    def _other_port(self) -> int:
        while (port := free_port()) == self._port:
            pass
        return port

    @property
    def pid(self) -> int:
        return self._process.pid

    def invoke(self, event: object) -> bytes:
        url = f"http://127.0.0.1:{self._port}/2015-03-31/functions/function/invocations"
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(url, json.dumps(event).encode(), timeout=60) as answer:
                    return answer.read()
            except ConnectionError:
                if time.monotonic() > deadline:
                    raise
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionError) or time.monotonic() > deadline:
                    raise
            if self._process.poll() is not None:
                self._log.seek(0)
                raise SystemExit(f"the Runtime Interface Emulator ended:\n{self._log.read()}")
            time.sleep(0.02)

    def init_ms(self) -> float:
        self._log.seek(0)
        return float(_INIT.search(self._log.read())[1])


def built(function: str) -> tuple[Path, Path]:
    """The folders of a function's and its layer's artifacts, as `sam build` left them for this Python."""
    build = Path(os.environ["BENCH_BUILD"])
    layer = "OtaCoreLayerArm64" if _ARCHITECTURE == "arm64" else "OtaCoreLayerX8664"
    return build / f"{function}Function", build / layer / "python"


def main() -> None:
    report(*(_measure(function, clients) for function, clients in _FUNCTIONS.items()))


def _measure(function: str, clients: tuple[str, ...]) -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        lines = ["import boto3", *(f"boto3.client({client!r})" for client in clients)]
        lines += ["def lambda_handler(event, context):", "    pass"]
        (Path(folder) / "handler.py").write_text("\n".join(lines) + "\n")
        pairs = [(_start(*built(function)), _start(Path(folder), None)) for _ in range(_RUNS)]
    ratio = statistics.median(ours / floor for ours, floor in pairs)
    most = 1.1 if function == "DeliverFirmware" else 1.4
    return Figure(
        row="cold start",
        what=f"ms until {function} is ready",
        ours=statistics.median(ours for ours, _ in pairs),
        floor=statistics.median(floor for _, floor in pairs),
        ratio=ratio,
        goal=f"≤ {most} × floor",
        is_met=ratio <= most,
    )


def _start(folder: Path, layer: Path | None) -> float:
    with Runtime(folder, layer) as runtime:
        runtime.invoke({})  # Even if it fails: the emulator starts the runtime with the first event.
        return runtime.init_ms()


if __name__ == "__main__":
    main()
