"""`sam build` and `sam deploy` of the project's own template."""

import os
import platform
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .errors import LocalCloudError
from .processes import ServerProcess, clean_environment

STACK_NAME = "ota"
REGION = "us-east-1"
# The emulator's name for root of the account 000000000000.
ROOT_ACCESS_KEY_ID = "test"
# The names of the REST APIs, which the emulator also uses as their ids.
API_ID = f"{STACK_NAME}-api"
OPERATOR_API_ID = f"{STACK_NAME}-operator-api"
CONSOLE_API_ID = f"{STACK_NAME}-console"
ARTIFACTS_BUCKET = "deployment-artifacts"
# The emulator's Lambda workers use the Python that runs it, which is also the one that runs us.
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
ARCHITECTURE = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
_SAM_SECONDS = 600.0
_STOP_SECONDS = 5.0


def aws_environment(endpoint: str, secret_access_key: str) -> dict[str, str]:
    """The environment in which AWS tools talk to the emulator, as root, and to nothing else."""
    return clean_environment(
        AWS_ENDPOINT_URL=endpoint,
        AWS_ACCESS_KEY_ID=ROOT_ACCESS_KEY_ID,
        AWS_SECRET_ACCESS_KEY=secret_access_key,
        AWS_DEFAULT_REGION=REGION,
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
        AWS_PAGER="",
        SAM_CLI_TELEMETRY="0",
    )


def build_stack(project: Path, folder: Path, log: Path, record: Path, runtime: str = RUNTIME) -> None:
    """Build functions and layers for a runtime into `folder`; unchanged ones come from a cache there.

    Raises:
        LocalCloudError: `sam build` failed.
    """
    _sam(
        [
            "build",
            "--template",
            project / "template.yaml",
            "--build-dir",
            folder / "build",
            "--cache-dir",
            folder / "cache",
        ],
        {"PythonRuntime": runtime, "Architecture": ARCHITECTURE},
        project=project,
        environment=aws_environment("http://127.0.0.1:9", "none"),  # building makes no AWS calls
        log=log,
        record=record,
    )


def deploy_stack(
    project: Path,
    folder: Path,
    environment: Mapping[str, str],
    parameters: Mapping[str, str],
    log: Path,
    record: Path,
) -> None:
    """Deploy what `build_stack` built, in the environment that `aws_environment` makes.

    Raises:
        LocalCloudError: `sam deploy` failed.
    """
    _sam(
        [
            *("deploy", "--template", folder / "build" / "template.yaml", "--s3-bucket", ARTIFACTS_BUCKET),
            "--no-progressbar",
        ],
        {"PythonRuntime": RUNTIME, "Architecture": ARCHITECTURE, **parameters},
        project=project,
        environment=environment,
        log=log,
        record=record,
    )


def _sam(
    command: list[str | Path],
    parameters: Mapping[str, str],
    *,
    project: Path,
    environment: Mapping[str, str],
    log: Path,
    record: Path,
) -> None:
    whole = ["sam", *command, "--config-file", project / "samconfig.toml", "--config-env", "local"]
    whole += [
        "--parameter-overrides",
        *(f'ParameterKey={name},ParameterValue="{value}"' for name, value in parameters.items()),
    ]
    log.unlink(missing_ok=True)
    # sam leaves an empty folder there for each function that it builds.
    with tempfile.TemporaryDirectory(dir=record.parent) as temporary:
        process = ServerProcess.start(
            whole, environment={**environment, "TMPDIR": temporary}, folder=project, log=log, record=record
        )
        try:
            code = process.wait(_SAM_SECONDS)
        finally:  # even if we are interrupted
            process.stop(signal.SIGTERM, _STOP_SECONDS)
    if code is None:
        raise LocalCloudError(
            f"`sam {command[0]}` took more than {_SAM_SECONDS:.0f} s.", "See what it waited for.", log
        )
    if code != 0:
        raise LocalCloudError(f"`sam {command[0]}` failed.", "Fix what it complains about and run this again.", log)
