"""The AWS emulator on loopback, with IAM checking on, closed to everyone who does not know this start's secret."""

import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import requests

from .errors import LocalCloudError
from .processes import ServerProcess, clean_environment, free_port
from .signature import Signature
from .stack import ROOT_ACCESS_KEY_ID, aws_environment

_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_PORT_TRIES = 3
_ENTRY = Path(__file__).with_name("emulator_entry.py")


@dataclass(frozen=True)
class Emulator:
    """Where the emulator listens, and root's secret access key, which each start makes anew."""

    port: int
    mqtt_port: int
    secret_access_key: str = field(repr=False)

    @property
    def endpoint(self) -> str:
        """The URL that AWS clients use."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which AWS tools talk to it as root."""
        return aws_environment(self.endpoint, self.secret_access_key)

    def is_ready(self) -> bool:
        """Whether it serves AWS calls and MQTT."""
        try:
            return bool(json.loads(self._get("/_ministack/ready"))["iot_mtls"] == "listening")
        except (OSError, ValueError, KeyError):
            return False

    def mqtt_authority(self) -> bytes:
        """The certificate, PEM, of the CA that issued the MQTT broker's certificate."""
        return self._get("/_ministack/iot/ca.pem")

    def _get(self, path: str) -> bytes:
        with requests.Session() as session:
            session.trust_env = False  # it may name a proxy
            answer = session.get(
                self.endpoint + path, auth=Signature(ROOT_ACCESS_KEY_ID, self.secret_access_key), timeout=5
            )
        answer.raise_for_status()
        return answer.content


def start_emulator(
    python: Path, temporary: Path, log: Path, record: Path, program: Sequence[str | Path] = (_ENTRY,)
) -> Emulator:
    """Start an empty emulator.

    Args:
        python: The interpreter of the emulator's own environment.
        temporary: The folder for its temporary files.
        log: The file for its output.
        record: The file for the process's identity.
        program: What the interpreter runs; by default the emulator with our fixes.

    Raises:
        LocalCloudError: It does not start.
    """
    if not python.exists():
        raise LocalCloudError(f"{python} is missing.", "Run `make setup`.")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for _ in range(_PORT_TRIES):  # another program may take a free port before we do
        emulator = Emulator(free_port(), free_port(), secrets.token_urlsafe(30))
        process = ServerProcess.start(
            [python, "-P", *program],
            environment=clean_environment(
                AUTH="true",
                BIND_HOST="127.0.0.1",
                GATEWAY_PORT=str(emulator.port),
                IOT_MTLS_PORT=str(emulator.mqtt_port),
                AWS_SECRET_ACCESS_KEY=emulator.secret_access_key,
                SFTP_ENABLED="0",
                SFN_WAIT_SCALE="1",
                LOG_LEVEL="WARNING",
                # Its Lambda workers would inherit WARNING; on AWS they log from INFO.
                POWERTOOLS_LOG_LEVEL="INFO",
                TMPDIR=str(temporary),
                # It would manage the containers of any engine that it finds, and some may be other people's.
                DOCKER_HOST=f"unix://{temporary}/none.sock",
                # Its Lambda workers inherit this environment.
                AWS_CONFIG_FILE=os.devnull,
                AWS_SHARED_CREDENTIALS_FILE=os.devnull,
                AWS_EC2_METADATA_DISABLED="true",
            ),
            folder=temporary,
            log=log,
            record=record,
        )
        deadline = time.monotonic() + _START_SECONDS
        while process.is_running() and time.monotonic() < deadline:
            if emulator.is_ready():
                return emulator
            time.sleep(0.1)
        stop_emulator(process)
    raise LocalCloudError("The AWS emulator did not start.", "Its log says why.", log)


def stop_emulator(process: ServerProcess) -> None:
    """Stop the emulator and its Lambda workers."""
    process.stop(signal.SIGTERM, _STOP_SECONDS)
