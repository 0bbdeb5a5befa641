"""README and docs/deploy.md lead from a clone to a first release: their commands, in order, on the local cloud."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import requests
import yaml
from local_cloud import Subscriber
from local_cloud.devices import DeviceIdentity
from local_cloud.stack import ARCHITECTURE
from support.esp_images import app_image
from support.shell_blocks import shell_blocks
from support.templates import read_template

PROJECT = Path(__file__).resolve().parents[2]
TOPIC_PREFIX = "/staging/firmware_update"
MAC = "AA:BB:CC:DD:EE:FF"


def parameters(cloud):
    """What a reader would write whose PostgreSQL, network and domain name are the local cloud's."""
    secret = cloud.client("secretsmanager").describe_secret(SecretId="ota/database")
    return {
        "DatabaseHost": cloud.database.host,
        "DatabasePort": cloud.database.port,
        "DatabaseName": "staging",
        "DatabaseSecretArn": secret["ARN"],
        "DatabaseCaPem": cloud.database.ca_file.read_text(),
        "PublicApiUrl": f"{cloud.endpoint}/_aws/execute-api/ota-staging-api/v1",
        "TopicPrefix": TOPIC_PREFIX,
        "Architecture": ARCHITECTURE,
    }


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The project's files, as git knows them."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (PROJECT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def shell(cloud, clone, tmp_path_factory):
    """Runs commands in the clone, as somebody who is logged in to AWS."""
    connection = cloud.connect_database()
    connection.run("CREATE DATABASE staging")
    connection.close()
    tools = tmp_path_factory.mktemp("tools")
    (tools / "staging.yaml").write_text(yaml.safe_dump(parameters(cloud)))
    # PlatformIO's toolchains are hundreds of megabytes; this one "builds" an image that is there.
    (tools / "firmware.bin").write_bytes(app_image(version="1.0.0"))
    pio = tools / "pio"
    pio.write_text(
        '#!/bin/sh\nset -e\nbuild="$3/.pio/build/$5"\ntest "$1 $2 $4" = "run --project-dir --environment"\n'
        f'mkdir -p "$build"\ncp {tools}/firmware.bin "$build"\n'
    )
    pio.chmod(0o755)
    environment = {
        name: value for name, value in cloud.environment.items() if not name.startswith(("OTA_", "DATABASE"))
    }
    environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
    environment["TMPDIR"] = str(tmp_path_factory.mktemp("tmp"))  # `sam build` leaves empty folders there

    def run(*commands):
        return subprocess.run(
            ["sh", "-e", "-c", "\n".join(commands)],
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    run.parameters = tools / "staging.yaml"
    return run


@pytest.fixture(scope="module")
def released(shell):
    """What the commands printed, and how they ended."""
    tool, database, *rest = shell_blocks(PROJECT / "docs" / "deploy.md", "first release")
    # No function reaches the Aurora of an emulator, so the reader turns out to have a PostgreSQL of his own.
    own = f"cp staging.yaml aurora.yaml; cp {shell.parameters} staging.yaml\n"
    done = shell(tool, database, own, *rest)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def test_every_command_leads_to_a_release_that_a_device_is_told_of(released):
    *_, status, notification = released.stdout.rsplit("\n{", 2)
    assert json.loads("{" + status.partition("\n}")[0] + "}")["state"] == "published"
    told = json.loads("{" + notification)
    assert (told["product"], told["version"]) == ("thermostat", "1.0.0")


def test_database_of_aurora_gives_the_main_stack_its_parameters(released, clone):
    written = yaml.safe_load((clone / "aurora.yaml").read_text())
    assert written.keys() <= read_template(PROJECT / "template.yaml")["Parameters"].keys()
    assert written["DatabaseUser"] == "ota"
    assert written["DatabaseResourceId"].startswith("cluster-")
    assert written["VpcSubnetIds"].count("subnet-") == 2


@pytest.fixture
def device(released, clone, cloud):
    """The session of the device that the commands registered."""
    identity = DeviceIdentity(MAC, clone / "device.cert.pem", clone / "device.key.pem")
    topics = [f"{TOPIC_PREFIX}/product/thermostat"]
    return Subscriber("127.0.0.1", cloud.emulator.mqtt_port, cloud.mqtt_ca, identity, topics)


def test_registered_device_connects_and_hears_of_the_release(device):
    with device as session:
        [message] = session.wait_for(1, 30)
    assert message.json["version"] == "1.0.0"


def test_stack_that_was_deleted_begins_again_with_bucket_database_and_devices(released, shell, cloud, device):
    [begin_with_what_is_kept] = shell_blocks(PROJECT / "docs" / "operations.md", "start over")
    stacks = cloud.client("cloudformation")
    before = outputs_of(stacks)
    stacks.delete_stack(StackName="ota-staging")
    stacks.get_waiter("stack_delete_complete").wait(StackName="ota-staging", WaiterConfig={"Delay": 1})

    done = shell(
        "stack=ota-staging",
        f"bucket={before['BucketName']}",
        f"device_policy={before['DevicePolicyName']}",
        begin_with_what_is_kept,
        "sam deploy --config-env staging",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    after = outputs_of(stacks)
    for kept in ("BucketName", "DevicePolicyName"):
        assert after[kept] == before[kept]
    key = cloud.client("apigateway").get_api_key(apiKey=after["ApiKeyId"], includeValue=True)["value"]
    image = requests.get(
        f"{after['ApiUrl']}/firmware/thermostat/1.0.0",
        headers={"x-api-key": key, "Accept": "application/octet-stream"},
        timeout=30,
    )
    assert image.status_code == 200
    assert image.content == app_image(version="1.0.0")
    with device as session:
        assert session.wait_for(1, 30)


def test_database_outlives_its_stack(released, cloud):
    stacks, databases = cloud.client("cloudformation"), cloud.client("rds")
    [before] = databases.describe_db_clusters()["DBClusters"]
    stacks.delete_stack(StackName="ota-database")
    stacks.get_waiter("stack_delete_complete").wait(StackName="ota-database", WaiterConfig={"Delay": 1})
    [after] = databases.describe_db_clusters()["DBClusters"]
    assert after["DBClusterArn"] == before["DBClusterArn"]
    assert len(databases.describe_db_instances()["DBInstances"]) == 1
    groups = [group["VpcSecurityGroupId"] for group in after["VpcSecurityGroups"]]
    assert cloud.client("ec2").describe_security_groups(GroupIds=groups)["SecurityGroups"]


def run_in(folder, commands, environment):
    """Run a block of commands on an image, outside the clone."""
    (folder / "app.bin").write_bytes(app_image(version="1.4.0"))
    done = subprocess.run(
        ["sh", "-e", "-c", commands],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_signing_tool_does_what_the_readme_says(cloud, tmp_path):
    [commands] = shell_blocks(PROJECT / "README.md", "sign")
    said = run_in(tmp_path, commands, {"PATH": cloud.environment["PATH"]})
    assert "Good: " in said
    assert '"version": "1.4.0"' in said


def test_local_cloud_takes_the_release_of_the_readme(cloud, tmp_path):
    [commands] = shell_blocks(PROJECT / "README.md", "try it")
    # It runs already, and how it is started is tested elsewhere.
    (tmp_path / "make").write_text("#!/bin/sh\n")
    (tmp_path / "make").chmod(0o755)
    (tmp_path / ".local").symlink_to(cloud.state)
    # Of this project's programs, the reader's PATH has none.
    said = run_in(tmp_path, commands, {"PATH": f"{tmp_path}{os.pathsep}{os.defpath}"})
    assert '"state": "published"' in said


def outputs_of(stacks):
    outputs = stacks.describe_stacks(StackName="ota-staging")["Stacks"][0]["Outputs"]
    return {output["OutputKey"]: output["OutputValue"] for output in outputs}
