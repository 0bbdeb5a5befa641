"""The local cloud is what `make local` promises: on loopback only, closed to strangers, usable from a shell."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pg8000.native
import psutil
import pytest
from botocore.exceptions import ClientError
from local_cloud import DEVICE_MAC, LocalCloud, LocalCloudError, Subscriber, is_running, start, stop
from local_cloud.cloud import _start
from local_cloud.processes import ServerProcess
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

PROMISED = {
    *("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"),
    *("OTA_BUCKET", "OTA_TOPIC_PREFIX", "OTA_SIGNING_KEY", "DATABASE_URL"),
    *("OTA_MQTT_HOST", "OTA_MQTT_PORT", "OTA_MQTT_CA"),
    *("OTA_DEVICE_CERT", "OTA_DEVICE_KEY", "OTA_DEVICE_MAC"),
}


def after_sourcing(cloud: LocalCloud, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = cloud.environment["PATH"]
    return subprocess.run(
        ["sh", "-c", f". {shlex.quote(str(cloud.state / 'env'))}; {command}"],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_environment_file_holds_everything_promised_and_is_private(cloud):
    file = cloud.state / "env"
    assert file.stat().st_mode & 0o777 == 0o600
    printed = after_sourcing(cloud, "env -0").stdout
    found = dict(entry.split("=", 1) for entry in printed.split("\0") if "=" in entry)
    assert found.keys() >= PROMISED
    assert found["OTA_DEVICE_MAC"] == DEVICE_MAC
    for name in ("OTA_MQTT_CA", "OTA_DEVICE_CERT", "OTA_DEVICE_KEY", "OTA_SIGNING_KEY"):
        assert Path(found[name]).is_file(), name


def test_aws_cli_works_after_sourcing_whatever_the_users_own_configuration_says(cloud):
    users_own = {
        "AWS_PROFILE": "production",
        "AWS_SESSION_TOKEN": "token",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "HTTPS_PROXY": "http://127.0.0.1:1",
    }
    done = after_sourcing(cloud, 'aws s3api get-bucket-versioning --bucket "$OTA_BUCKET"', **users_own)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Status"] == "Enabled"


def test_psql_works_after_sourcing(cloud):
    done = after_sourcing(cloud, 'psql "$DATABASE_URL" -tAc "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"')
    if "not found" in done.stderr:
        pytest.skip("psql is not installed")
    assert done.stdout.strip() == "t", done.stderr


def test_plain_mqtt_client_with_the_device_certificate_hears_the_fleets_topic(cloud):
    """Of someone else's making: nothing of ours but the variables."""
    variables = cloud.environment
    heard = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=variables["OTA_DEVICE_MAC"])
    client.tls_set(variables["OTA_MQTT_CA"], variables["OTA_DEVICE_CERT"], variables["OTA_DEVICE_KEY"])
    client.on_connect = lambda client, *_: client.subscribe(variables["OTA_TOPIC_PREFIX"], qos=1)
    client.on_subscribe = lambda *_: cloud.client("iot-data").publish(
        topic=variables["OTA_TOPIC_PREFIX"], qos=1, payload=b"{}"
    )

    def on_message(client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        heard.append(message.payload)
        client.disconnect()

    client.on_message = on_message
    client.connect(variables["OTA_MQTT_HOST"], int(variables["OTA_MQTT_PORT"]))
    for _ in range(100):
        if client.loop(timeout=0.2) != mqtt.MQTT_ERR_SUCCESS:
            break
    assert heard


def test_device_cannot_subscribe_to_another_devices_topic(cloud):
    with (
        pytest.raises(LocalCloudError, match="did not accept"),
        cloud.subscriber("02:00:00:00:00:02", ["/firmware_update/02:00:00:00:00:03"]),
    ):
        pass


def test_device_cannot_take_another_devices_client_id(cloud):
    thief = cloud.device("02:00:00:00:00:02")
    claimed = type(thief)("02:00:00:00:00:03", thief.certificate, thief.key)
    session = Subscriber("127.0.0.1", cloud.emulator.mqtt_port, cloud.mqtt_ca, claimed, ["/firmware_update"])
    with pytest.raises(LocalCloudError, match="did not accept"), session:
        pass


def test_iam_is_checked(cloud):
    iam = cloud.client("iam")
    iam.create_user(UserName="stranger")
    key = iam.create_access_key(UserName="stranger")["AccessKey"]
    stranger = boto3.client(
        "s3",
        endpoint_url=cloud.endpoint,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        region_name="us-east-1",
    )
    with pytest.raises(ClientError, match="AccessDenied"):
        stranger.list_objects_v2(Bucket=cloud.bucket)


def test_database_refuses_a_session_without_tls(cloud):
    database = cloud.database
    with pytest.raises(pg8000.exceptions.DatabaseError, match="no encryption"):
        pg8000.native.Connection(
            database.user, database.host, database.name, database.port, database.password, ssl_context=False
        )


def test_database_refuses_a_wrong_password(cloud):
    with pytest.raises(pg8000.exceptions.DatabaseError, match="password authentication failed"):
        dataclasses.replace(cloud.database, password="guess").connect()


@pytest.mark.parametrize("server", ["postgresql", "emulator"])
def test_servers_listen_on_loopback_only(cloud, server):
    process = ServerProcess.load(cloud.state / "run" / f"{server}.json")
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    addresses = {
        connection.laddr.ip
        for member in family
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_cloud_that_somebody_works_on_can_be_neither_started_nor_stopped_by_others(cloud):
    for act in (lambda: start(cloud.state, print), lambda: stop(cloud.state)):
        with pytest.raises(LocalCloudError, match=f"Process {os.getpid()} is working"):
            act()


def test_running_cloud_is_found(cloud):
    assert is_running(cloud.state)


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_start_that_is_interrupted_leaves_nothing_running(cloud, blow):
    """Not under pytest's folders, which are closed to the user that PostgreSQL runs as: a folder beside the cloud's."""
    state = cloud.state.with_name(".local-interrupted")
    command = [sys.executable, "-m", "local_cloud"]
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    starting = subprocess.Popen(
        [*command, "up", "--state", state], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, before)
    try:
        records = [state / "run" / f"{server}.json" for server in ("postgresql", "emulator")]
        deadline = time.monotonic() + 60
        while not all(servers := [ServerProcess.load(record) for record in records]):
            assert starting.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        starting.send_signal(blow)
        _, complaint = starting.communicate(timeout=60)
        assert starting.returncode != 0
        if blow == signal.SIGKILL:
            assert all(server.is_running() for server in servers)
            assert subprocess.run([*command, "down", "--state", state], check=False).returncode == 0
        else:
            assert "interrupted" in complaint
            assert "Traceback" not in complaint
        assert not any(server.is_running() for server in servers)
        assert not (state / "env").exists()
    finally:
        starting.kill()
        subprocess.run([*command, "down", "--state", state], check=False)
        shutil.rmtree(state)


def test_second_start_uses_the_running_cloud(cloud):
    before = [ServerProcess.load(cloud.state / "run" / f"{server}.json") for server in ("postgresql", "emulator")]
    again = _start(cloud.state, lambda _: None)  # without the lock, which the running tests hold
    assert [ServerProcess.load(cloud.state / "run" / f"{s}.json") for s in ("postgresql", "emulator")] == before
    assert again.outputs == cloud.outputs
    assert again.device(DEVICE_MAC) == cloud.device(DEVICE_MAC)
