"""The local cloud as a whole: started, stopped, and reached."""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pg8000.native
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives import serialization
from mypy_boto3_cognito_idp import CognitoIdentityProviderClient
from mypy_boto3_iot import IoTClient
from mypy_boto3_ssm import SSMClient

from .devices import DeviceIdentity, Subscriber
from .emulator import Emulator, start_emulator, stop_emulator
from .errors import LocalCloudError
from .postgresql import Database, remove_cluster, restart_postgresql, start_postgresql, stop_postgresql
from .processes import ServerProcess, clean_environment, stop_strays
from .stack import (
    API_ID,
    ARTIFACTS_BUCKET,
    CONSOLE_API_ID,
    OPERATOR_API_ID,
    REGION,
    ROOT_ACCESS_KEY_ID,
    STACK_NAME,
    build_stack,
    deploy_stack,
)

PROJECT = Path(__file__).resolve().parents[2]
DEVICE_MAC = "02:00:00:00:00:01"  # locally administered (IEEE 802), so nobody's
TOPIC_PREFIX = "/firmware_update"
BUILD_SERVER_ISSUER = "token.actions.githubusercontent.com"
_DROP_GRACE_SECONDS = 10
_PUBLISH_RATE_PER_SECOND = 1000
# So that the emulator is the limit, not the plan.
_API_RATE_PER_SECOND = 2000
_API_STAGE = "v1"
_CONSOLE_STAGE = "console"
# Users of the console, and their groups, of the same names.
_CONSOLE_USERS = ("viewer", "operator")
_SAM_STOP_SECONDS = 5.0
_DEPLOYMENT_BEGINS = {"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS"}
_SECRET_NAME = "ota/database"  # noqa: S105 - a name # nosec B105

Say = Callable[[str], None]


@dataclass(frozen=True)
class LocalCloud:
    """A running local cloud with the deployed stack, and how to use it.

    Everything here connects to loopback, with root's credentials for this emulator; your own AWS configuration is never
    read.
    """

    state: Path
    emulator: Emulator
    database: Database
    outputs: Mapping[str, str]
    api_key: str | None
    console_passwords: Mapping[str, str]

    @property
    def endpoint(self) -> str:
        """The URL that AWS clients use."""
        return self.emulator.endpoint

    @property
    def environment(self) -> dict[str, str]:
        """The environment for a program that uses this cloud, as the file `env` sets it."""
        return self.emulator.environment | self._variables()

    @property
    def console_url(self) -> str:
        """The web console's page."""
        return self.outputs["ConsoleUrl"]

    @property
    def bucket(self) -> str:
        """The bucket with the inbox and the releases."""
        return self.outputs["BucketName"]

    @property
    def signing_key(self) -> Path:
        """A private key, PEM, that the stack trusts."""
        return _signing_key_file(self.state)

    @property
    def mqtt_ca(self) -> Path:
        """The CA that issued the MQTT broker's certificate."""
        return self.state / "mqtt-ca.pem"

    def client(self, service: str) -> Any:  # noqa: ANN401 - each service has a type of its own
        """Make a boto3 client for the emulator."""
        return _client(self.emulator, service)

    def connect_database(self) -> pg8000.native.Connection:
        """Open a connection to the pipeline's database, as the role that the pipeline uses."""
        return self.database.connect()

    def restart_database(self) -> None:
        """Restart PostgreSQL, as maintenance does: every session ends, and for a moment there is no server.

        Raises:
            LocalCloudError: It is not running, or does not start again.
        """
        record = _record(self.state, "postgresql")
        process = ServerProcess.load(record)
        if process is None:
            raise LocalCloudError("PostgreSQL is not running.", "Start the local cloud.")
        log = self.state / "logs" / "postgresql.log"
        restart_postgresql(process, self.state / "postgresql", self.database, log, record)

    def trust(self, public_key_pem: bytes) -> str:
        """Let the stack trust a key.

        Returns:
            Its keyid: SHA-256, hex, of the DER SubjectPublicKeyInfo.
        """
        return _trust(self.client("ssm"), public_key_pem)

    def distrust(self, keyid: str) -> None:
        """Revoke a key."""
        self.client("ssm").delete_parameter(Name=f"/{STACK_NAME}/trusted-keys/{keyid}")

    def device(self, mac: str) -> DeviceIdentity:
        """A device's certificate and key; registers the device if it is not registered yet."""
        return _device(self.state, self.client("iot"), self.outputs["DevicePolicyName"], mac)

    def subscriber(self, mac: str, topics: list[str] | None = None) -> Subscriber:
        """Make a device's MQTT session.

        Without `topics` it listens to what a device of any product listens to. To receive retained messages, name
        their topics exactly: AWS IoT sends none for a filter with a wildcard.
        """
        own = [TOPIC_PREFIX, f"{TOPIC_PREFIX}/product/+", f"{TOPIC_PREFIX}/{mac}"]
        return Subscriber("127.0.0.1", self.emulator.mqtt_port, self.mqtt_ca, self.device(mac), topics or own)

    def drop(self, stem: str, **members: bytes) -> None:
        """Put files of a drop into the inbox.

        Args:
            stem: The part between `inbox/` and the suffix; may contain folders.
            members: Contents by suffix, in the order of upload: `bin`, `manifest`, `targets`.
        """
        suffixes = {"bin": ".bin", "manifest": ".manifest.json", "targets": ".targets.json"}
        s3 = self.client("s3")
        for member, content in members.items():
            s3.put_object(Bucket=self.bucket, Key=f"inbox/{stem}{suffixes[member]}", Body=content)

    def executions(self) -> list[dict[str, Any]]:
        """List the pipeline's executions, newest first."""
        pages = self.client("stepfunctions").get_paginator("list_executions")
        found: list[dict[str, Any]] = []
        for page in pages.paginate(stateMachineArn=self.outputs["StateMachineArn"]):
            found += page["executions"]
        return found

    def _variables(self) -> dict[str, str]:
        device = self.device(DEVICE_MAC)
        api = {"OTA_API_URL": _api_url(self.emulator, API_ID), "OTA_API_KEY": self.api_key} if self.api_key else {}
        return {
            "OTA_BUCKET": self.bucket,
            **api,
            "OTA_OPERATOR_API_URL": _api_url(self.emulator, OPERATOR_API_ID),
            "OTA_CONSOLE_URL": self.console_url,
            **{f"OTA_CONSOLE_{user.upper()}_PASSWORD": word for user, word in self.console_passwords.items()},
            "OTA_TOPIC_PREFIX": TOPIC_PREFIX,
            "OTA_MQTT_HOST": "127.0.0.1",
            "OTA_MQTT_PORT": str(self.emulator.mqtt_port),
            "OTA_MQTT_CA": str(self.mqtt_ca),
            "OTA_DEVICE_CERT": str(device.certificate),
            "OTA_DEVICE_KEY": str(device.key),
            "OTA_DEVICE_MAC": device.mac,
            "OTA_SIGNING_KEY": str(self.signing_key),
            "DATABASE_URL": self.database.url,
        }

    def write_environment(self) -> Path:
        """Write the file that a shell sources."""
        programs = shlex.quote(str(Path(sys.executable).parent))
        aws = {name: value for name, value in self.emulator.environment.items() if name.startswith("AWS_")}
        lines = [
            "# Source me: . .local/env",
            "# Your own AWS configuration is ignored while you use the local cloud.",
            "for name in $(env | sed -n 's/^\\(AWS_[A-Z0-9_]*\\)=.*/\\1/p'); do unset \"$name\"; done",
            *(f"export {name}={shlex.quote(value)}" for name, value in (aws | self._variables()).items()),
            # ota-sign and aws, unless they are on the path already.
            f'case ":$PATH:" in *:{programs}:*) ;; *) export PATH={programs}:"$PATH" ;; esac',
            'export NO_PROXY="127.0.0.1,localhost${NO_PROXY:+,$NO_PROXY}"',
        ]
        file = self.state / "env"
        _write_private(file, "\n".join(lines) + "\n")
        return file


def example_image() -> bytes:
    """A real ESP32-S3 application image: the one inside the package mxdbg (Apache-2.0)."""
    return Path(str(importlib.metadata.distribution("mxdbg").locate_file("firmware/mxdbg.bin"))).read_bytes()


def start(state: Path, say: Say) -> LocalCloud:
    """Start the cloud whose files are in `state` and deploy the stack; reuse it if it is running.

    If this fails or is interrupted, everything that it started is stopped again.

    Raises:
        LocalCloudError: Something does not start, or the stack does not deploy.
    """
    with _exclusively(state.resolve()):
        return _start(state.resolve(), say)


def stop(state: Path) -> bool:
    """Stop the cloud whose files are in `state`.

    Returns:
        Whether anything was running.

    Raises:
        LocalCloudError: Another command is working on it.
    """
    state = state.resolve()
    if not state.exists():
        return False
    with _exclusively(state):
        return _stop(state)


def is_running(state: Path) -> bool:
    """Whether the cloud whose files are in `state` is running and responds."""
    return _load_running(state.resolve()) is not None


@contextlib.contextmanager
def running(state: Path, say: Say) -> Iterator[LocalCloud]:
    """Start a new cloud that nobody else may touch, and stop it at the end, whatever happens."""
    with _exclusively(state.resolve()):
        _stop(state.resolve())
        try:
            yield _start(state.resolve(), say)
        finally:
            _stop(state.resolve())


def _start(state: Path, say: Say) -> LocalCloud:
    running = _load_running(state)
    if running is None:
        _stop(state)
    try:
        return _bring_up(state, running, say)
    except BaseException as error:
        if running is None:
            _stop(state)
        if isinstance(error, (ClientError, BotoCoreError)):
            raise LocalCloudError(
                f"The AWS emulator refused a call: {error}", "Its log may say more.", state / "logs" / "emulator.log"
            ) from error
        raise


@dataclass(frozen=True)
class _Running:
    emulator: Emulator
    database: Database


def _load_running(state: Path) -> _Running | None:
    """The servers, if both are running and respond; one alone is useless."""
    if not all(ServerProcess.load(_record(state, server)) for server in ("postgresql", "emulator")):
        return None
    try:
        facts = json.loads(_facts_file(state).read_text())
    except FileNotFoundError:
        return None
    ca_file = Path(facts["database"].pop("ca_file"))
    found = _Running(Emulator(**facts["emulator"]), Database(**facts["database"], ca_file=ca_file))
    try:
        found.database.connect().close()
    except (pg8000.exceptions.Error, OSError):
        return None
    return found if found.emulator.is_ready() else None


def _bring_up(state: Path, running: _Running | None, say: Say) -> LocalCloud:
    logs, sam = state / "logs", state / "sam"
    logs.mkdir(exist_ok=True)
    _record(state, "").parent.mkdir(exist_ok=True)
    with ThreadPoolExecutor() as pool:
        if running is None:
            say("starting PostgreSQL and the AWS emulator")
            for old in ("postgresql.log", "emulator.log"):
                (logs / old).unlink(missing_ok=True)
            database = pool.submit(
                start_postgresql,
                state / "postgresql",
                state / "database-ca.pem",
                logs / "postgresql.log",
                _record(state, "postgresql"),
            )
            emulator = pool.submit(
                start_emulator,
                PROJECT / ".venv-emulator" / "bin" / "python",
                state / "tmp",
                logs / "emulator.log",
                _record(state, "emulator"),
            )
        else:
            say(f"PostgreSQL and the AWS emulator are running already ({running.emulator.endpoint})")
        say("building the stack (sam build)")
        # In this thread, because this is the one that Ctrl-C interrupts.
        build_stack(PROJECT, sam, logs / "sam-build.log", _record(state, "sam"))
        if running is None:
            running = _Running(emulator.result(), database.result())
            _prepare(state, running)

    say("deploying the stack (sam deploy)")
    secret = _client(running.emulator, "secretsmanager").describe_secret(SecretId=_SECRET_NAME)
    parameters = {
        "DatabaseHost": running.database.host,
        "DatabasePort": str(running.database.port),
        "DatabaseName": running.database.name,
        "DatabaseSecretArn": secret["ARN"],
        "DatabaseCaPem": running.database.ca_file.read_text(),
        "PublicApiUrl": _api_url(running.emulator, API_ID),
        "ConsoleUrl": _api_url(running.emulator, CONSOLE_API_ID, _CONSOLE_STAGE),
        "SignInUrl": running.emulator.endpoint,
        "ConsoleMfa": "OFF",
        "TopicPrefix": TOPIC_PREFIX,
        "DropGracePeriod": str(_DROP_GRACE_SECONDS),
        "PublishRatePerSecond": str(_PUBLISH_RATE_PER_SECOND),
        "ApiRatePerSecond": str(_API_RATE_PER_SECOND),
        "ApiBurst": str(2 * _API_RATE_PER_SECOND),
        "BuildServerIssuer": BUILD_SERVER_ISSUER,
        "BuildServerSubject": "repo:example/firmware:*",
    }
    try:
        deploy_stack(
            PROJECT, sam, running.emulator.environment, parameters, logs / "sam-deploy.log", _record(state, "sam")
        )
    except LocalCloudError as error:
        failures = _failed_resources(running.emulator)
        if not failures:
            raise
        raise LocalCloudError(
            f"The stack was not deployed:\n{failures}",
            f"Fix these and run this again. {logs / 'sam-deploy.log'} has the details.",
        ) from error
    return _finish(state, running, say)


def _prepare(state: Path, running: _Running) -> None:
    """Create what the first deployment needs, and note where the servers are."""
    (state / "mqtt-ca.pem").write_bytes(running.emulator.mqtt_authority())
    login = json.dumps({"username": running.database.user, "password": running.database.password})
    _client(running.emulator, "secretsmanager").create_secret(Name=_SECRET_NAME, SecretString=login)
    _client(running.emulator, "s3").create_bucket(Bucket=ARTIFACTS_BUCKET)
    database = asdict(running.database) | {"ca_file": str(running.database.ca_file)}
    _write_private(_facts_file(state), json.dumps({"emulator": asdict(running.emulator), "database": database}))


def _failed_resources(emulator: Emulator) -> str:
    """Which resources failed in the last deployment, and why."""
    try:
        events = _client(emulator, "cloudformation").describe_stack_events(StackName=STACK_NAME)["StackEvents"]
    except (ClientError, BotoCoreError):  # it failed before there was a stack
        return ""
    failed = []
    for event in events:  # newest first
        if event["ResourceStatus"].endswith("_FAILED"):
            failed.append(f"    {event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'no reason given')}")
        if event["LogicalResourceId"] == STACK_NAME and event["ResourceStatus"] in _DEPLOYMENT_BEGINS:
            break
    return "\n".join(reversed(failed))


def _finish(state: Path, running: _Running, say: Say) -> LocalCloud:
    """Do what a deployed stack needs from its operator: a trusted key, an API key, a device, console users."""
    stacks = _client(running.emulator, "cloudformation").describe_stacks(StackName=STACK_NAME)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0]["Outputs"]}
    say("registering the signing key, a device and the console's users")
    _trust(_client(running.emulator, "ssm"), _make_signing_key(_signing_key_file(state)))
    api_key = None
    if "ApiKeyId" in outputs:
        gateway = _client(running.emulator, "apigateway")
        api_key = gateway.get_api_key(apiKey=outputs["ApiKeyId"], includeValue=True)["value"]
    passwords = _sign_up(state, _client(running.emulator, "cognito-idp"), outputs["ConsoleUserPoolId"])
    cloud = LocalCloud(state, running.emulator, running.database, outputs, api_key, passwords)
    (state / "app.bin").write_bytes(example_image())
    cloud.write_environment()
    return cloud


def _stop(state: Path) -> bool:
    servers = {server: ServerProcess.load(_record(state, server)) for server in ("postgresql", "emulator")}
    if process := ServerProcess.load(_record(state, "sam")):  # of a start that was killed
        process.stop(signal.SIGTERM, _SAM_STOP_SECONDS)
    if process := servers["emulator"]:
        stop_emulator(process)
    stop_strays(state / "tmp")
    if process := servers["postgresql"]:
        stop_postgresql(process)
    remove_cluster(state / "postgresql")
    for folder in ("run", "tmp", "devices"):
        shutil.rmtree(state / folder, ignore_errors=True)
    for file in ("env", "mqtt-ca.pem", "database-ca.pem"):
        (state / file).unlink(missing_ok=True)
    return any(servers.values())


@contextlib.contextmanager
def _exclusively(state: Path) -> Iterator[None]:
    """Let one command at a time work on a state folder. The system releases the lock when its holder dies."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise LocalCloudError(
                f"Process {lock.read().strip() or '(unknown)'} is working on {state}.",
                "Wait until it is done, or end it with Ctrl-C; it then stops what it started.",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _client(emulator: Emulator, service: str) -> Any:  # noqa: ANN401 - each service has a type of its own
    ignored = (None, None, os.devnull, None)
    session = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": ignored,
            "credentials_file": ignored,
            "region": (None, None, REGION, None),
        }
    )
    session.set_credentials(ROOT_ACCESS_KEY_ID, emulator.secret_access_key)
    clients: Any = boto3.Session(botocore_session=session)
    return clients.client(
        service,
        endpoint_url=emulator.endpoint,
        config=Config(
            proxies={},
            # A function may run for 15 minutes before it answers.
            read_timeout=900 if service == "lambda" else 60,
            retries={"total_max_attempts": 3, "mode": "standard"},
        ),
    )


def _trust(ssm: SSMClient, public_key_pem: bytes) -> str:
    der = serialization.load_pem_public_key(public_key_pem).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    keyid = hashlib.sha256(der).hexdigest()
    ssm.put_parameter(
        Name=f"/{STACK_NAME}/trusted-keys/{keyid}", Value=public_key_pem.decode(), Type="String", Overwrite=True
    )
    return keyid


def _device(state: Path, iot: IoTClient, policy: str, mac: str) -> DeviceIdentity:
    folder = state / "devices"
    folder.mkdir(exist_ok=True, mode=0o700)
    name = mac.replace(":", "-")
    device = DeviceIdentity(mac, folder / f"{name}.pem", folder / f"{name}.key")
    if not device.certificate.exists():
        made = iot.create_keys_and_certificate(setAsActive=True)
        iot.create_thing(thingName=mac, attributePayload={"attributes": {"first_certificate": made["certificateId"]}})
        iot.attach_thing_principal(thingName=mac, principal=made["certificateArn"])
        iot.attach_policy(policyName=policy, target=made["certificateArn"])
        _write_private(device.key, made["keyPair"]["PrivateKey"])
        device.certificate.write_text(made["certificatePem"])
    return device


def _make_signing_key(file: Path) -> bytes:
    """Create the key with `ota-sign` unless it exists, so that what it signed stays valid across restarts.

    Returns:
        The public key, PEM.
    """
    if not file.exists():
        subprocess.run(["ota-sign", "keygen", str(file)], env=clean_environment(), check=True, capture_output=True)
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _sign_up(state: Path, cognito: CognitoIdentityProviderClient, pool: str) -> dict[str, str]:
    """Create the console's users, each with a password that lasts as long as the cloud runs.

    Returns:
        The passwords, by user name.
    """
    file = state / "run" / "console-passwords.json"
    if not file.exists():
        passwords = {user: secrets.token_urlsafe(12) for user in _CONSOLE_USERS}
        for user, password in passwords.items():
            cognito.admin_create_user(
                UserPoolId=pool, Username=user, TemporaryPassword=password, MessageAction="SUPPRESS"
            )
            cognito.admin_set_user_password(UserPoolId=pool, Username=user, Password=password, Permanent=True)
            cognito.admin_add_user_to_group(UserPoolId=pool, Username=user, GroupName=user)
        _write_private(file, json.dumps(passwords))
    found: dict[str, str] = json.loads(file.read_text())
    return found


def _api_url(emulator: Emulator, api_id: str, stage: str = _API_STAGE) -> str:
    return f"{emulator.endpoint}/_aws/execute-api/{api_id}/{stage}"


def _record(state: Path, server: str) -> Path:
    return state / "run" / f"{server}.json"


def _facts_file(state: Path) -> Path:
    return state / "run" / "facts.json"


def _signing_key_file(state: Path) -> Path:
    return state / "signing-key.pem"


def _write_private(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        output.write(text)
