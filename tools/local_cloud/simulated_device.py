"""The firmware's own update code as a program: `ota_device`, built from `firmware/host`, against a local cloud."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .cloud import PROJECT, TOPIC_PREFIX, LocalCloud
from .errors import LocalCloudError

_BUILD = PROJECT / "build" / "host"
_INSTALL = "`make build-firmware` installs what it needs"
_BUILD_SECONDS = 600.0


def build_ota_device(log: Path, program: str = "ota_device") -> Path:
    """Build `ota_device`, or another program of `firmware/host`; what is up to date is not built again.

    Raises:
        LocalCloudError: The toolchain or a library is missing, or the sources do not build.
    """
    for tool in ("cmake", "ninja", "c++"):
        if shutil.which(tool) is None:
            raise LocalCloudError(f"{tool} is not installed.", f"{_INSTALL}.")
    configure: list[str | Path] = ["cmake", "-S", PROJECT / "firmware" / "host", "-B", _BUILD, "-G", "Ninja"]
    with log.open("w") as output:
        for command in (configure, ["ninja", "-C", str(_BUILD), program]):
            done = subprocess.run(
                [str(part) for part in command], stdout=output, stderr=output, timeout=_BUILD_SECONDS, check=False
            )
            if done.returncode != 0:
                raise LocalCloudError(f"{program} does not build.", f"{_INSTALL}.", log)
    return _BUILD / program


class SimulatedDevice:
    """A device that runs on this machine, with a flash of its own. Use it as a context manager.

    Options of `ota_device` are given with underscores: `version`, `back_off`, `fail_self_test`.
    """

    def __init__(
        self,
        program: Path,
        cloud: LocalCloud,
        folder: Path,
        *,
        mac: str,
        product: str,
        trusted_key: Path,
        **options: str,
    ) -> None:
        self.mac = mac
        self.events: list[dict[str, Any]] = []
        identity = cloud.device(mac)
        environment = cloud.environment
        flash = folder / f"{mac.replace(':', '-')}.img"
        given = {
            "mac": mac,
            "flash": flash,
            "product": product,
            "chip": "esp32s3",
            "api-url": environment["OTA_API_URL"],
            "api-key": environment["OTA_API_KEY"],
            "mqtt-host": environment["OTA_MQTT_HOST"],
            "mqtt-port": environment["OTA_MQTT_PORT"],
            "mqtt-ca": cloud.mqtt_ca,
            "mqtt-cert": identity.certificate,
            "mqtt-key": identity.key,
            "topic-prefix": TOPIC_PREFIX,
            "trusted-key": trusted_key,
            "max-delay": "0",
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        self._command = [str(program), *(part for name, value in given.items() for part in (f"--{name}", str(value)))]
        self._errors = flash.with_suffix(".log")
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        """Switch it on."""
        self._log = self._errors.open("w")
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut its power."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._log.close()

    @property
    def running_version(self) -> str:
        """What it said last that it runs."""
        with self._changed:
            return next(
                (str(event["running_version"]) for event in reversed(self.events) if "running_version" in event), ""
            )

    def wait_for(self, what: Callable[[dict[str, Any]], bool], seconds: float, *, since: int = 0) -> dict[str, Any]:
        """Wait for an event, or give the one that was there already; the first `since` events do not count.

        Raises:
            LocalCloudError: It did not come.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                found = next((event for event in self.events[since:] if what(event)), None)
                if found is not None:
                    return found
                left = deadline - time.monotonic()
                if left <= 0:
                    last = json.dumps(self.events[-3:])
                    raise LocalCloudError(
                        f"The device {self.mac} did not do what it should within {seconds:.0f} s.",
                        f"Its last events: {last}",
                        self._errors,
                    )
                self._changed.wait(left)

    def wait_for_event(self, name: str, seconds: float = 180.0) -> dict[str, Any]:
        """Wait for an event of this name, and raise as `wait_for`."""
        return self.wait_for(lambda event: event["event"] == name, seconds)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()
