"""Servers that outlive the command that started them, until a later one stops them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

# psutil derives a start time from clock ticks since boot; another process with the same pid differs by far more.
_SAME_START_SECONDS = 2.0
_KILL_SECONDS = 5.0


@dataclass(frozen=True)
class ServerProcess:
    """A started server. Another process may get its pid later, so the start time is part of its identity."""

    pid: int
    started: float

    @classmethod
    def start(
        cls,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        record: Path,
        uid: int | None = None,
    ) -> "ServerProcess":
        """Start a server in its own session, so that a Ctrl-C meant for us does not reach it.

        Args:
            command: Program and arguments.
            environment: Its whole environment.
            folder: Its working directory.
            log: The file for its output.
            record: The file for its identity, for `load`.
            uid: The user that it runs as; None means the caller.

        Raises:
            OSError: The program cannot be run.
        """
        with log.open("ab") as output:
            child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
                user=uid,
                group=uid,
                extra_groups=None if uid is None else [],
            )
        process = cls(child.pid, psutil.Process(child.pid).create_time())
        record.write_text(json.dumps({"pid": process.pid, "started": process.started}))
        return process

    @classmethod
    def load(cls, record: Path) -> "ServerProcess | None":
        """Find the running server that was recorded; None if there is none."""
        try:
            process = cls(**json.loads(record.read_text()))
        except (FileNotFoundError, ValueError, TypeError):  # never started, or its starter was killed while writing
            return None
        return process if process.is_running() else None

    def _find(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            ours = abs(process.create_time() - self.started) < _SAME_START_SECONDS
            if ours and process.status() == psutil.STATUS_ZOMBIE:
                process.wait(timeout=0)  # reaps it if it is our child
                return None
        except (psutil.NoSuchProcess, psutil.TimeoutExpired):
            return None
        return process if ours else None

    def is_running(self) -> bool:
        """Whether it is still running."""
        return self._find() is not None

    def program(self) -> Path:
        """The file that it runs.

        Raises:
            psutil.NoSuchProcess: It has ended.
        """
        return Path(psutil.Process(self.pid).cmdline()[0])

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; only the process that started it can.

        Returns:
            Its exit code, or None if it is still running after that time.
        """
        try:
            code: int = psutil.Process(self.pid).wait(seconds)
        except psutil.TimeoutExpired:
            return None
        return code

    def stop(self, polite: signal.Signals, patience: float) -> None:
        """Ask it to end, wait, and kill what is left of it and its children."""
        process = self._find()
        if process is None:
            return
        family = [*process.children(recursive=True), process]
        process.send_signal(polite)
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(timeout=patience)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()  # psutil spares another process that has got the pid since
        psutil.wait_procs(family, timeout=_KILL_SECONDS)


def stop_strays(folder: Path) -> None:
    """Kill the Python processes whose program is a file in `folder`: workers that outlived a killed server."""
    for process in psutil.process_iter(["cmdline"]):
        program, *arguments = process.info["cmdline"] or [""]
        is_python = Path(program).name.startswith("python")
        if is_python and arguments and arguments[0].startswith(f"{folder}{os.sep}"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clean_environment(**extra: str) -> dict[str, str]:
    """The caller's environment without what would change how AWS tools, Python or libpq behave."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "OTA_", "PYTHON", "SAM_", "MINISTACK_", "PG"))
    }
    beyond_proxies = ",".join(filter(None, ["127.0.0.1,localhost", os.environ.get("NO_PROXY", "")]))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return kept | {"PATH": path, "NO_PROXY": beyond_proxies, "no_proxy": beyond_proxies} | extra
