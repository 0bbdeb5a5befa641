"""Every function runs in the container of AWS's runtime, from what `sam build` packs, on the files under events/.

That is where a dependency shows that is missing in the layer. The functions use the local cloud, in the order of a
release, so that each finds what the one before it did.
"""

import contextlib
import json
import subprocess

import boto3
import docker
import pytest
from botocore.config import Config
from docker.errors import DockerException
from local_cloud.cloud import PROJECT
from local_cloud.sam_local import HOST_OF_CONTAINERS, reachable_from_containers
from local_cloud.stack import REGION, ROOT_ACCESS_KEY_ID
from support.functions import read_event

CASES = {
    "validate_signature/incomplete_drop": {"outcome": "waiting"},
    "register_metadata/new_release": {"outcome": "registered", "version": "1.4.0"},
    "resolve_targets/only_wave": {"outcome": "wave", "batches": 1, "messages": 2},
    "publish_mqtt/batch": {"published": 2},
    "advance_rollout/published_wave": {"step": "complete"},
    "settle_drop/archive": {"settled": "archived"},
    "announce_failure/failed_execution": None,
    "authorize_device/claimed": {"allowProvisioning": False},
    "check_for_update/older_version": {"statusCode": 204},
    "deliver_firmware/unknown_version": {"statusCode": 404},
    "record_status/reported": {"batchItemFailures": []},
    "operate_releases/list_releases": {"statusCode": 200},
    "authorize_operator/list_releases": {"statusCode": 200},
    "authorize_operator/list_rejected_drops": {"statusCode": 200},
    "serve_console/page": {"statusCode": 200},
    "check_consistency/everything": {"is_consistent": False},
    "migrate_database/create": None,
}


@pytest.fixture(scope="module")
def prepared(cloud):
    try:
        docker.from_env().ping()
    except DockerException as error:
        pytest.skip(f"no container engine answers, which `sam local invoke` needs: {error}")
    with reachable_from_containers(cloud) as sam_local:
        yield sam_local
    with contextlib.closing(cloud.connect_database()) as database:
        # The events are about a release that was never dropped.
        database.run("DELETE FROM releases WHERE product = 'sam-local'")


def test_every_function_has_a_case():
    folders = {handler.parent.name for handler in (PROJECT / "functions").glob("*/handler.py")}
    assert folders == {case.split("/")[0] for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_function_runs_in_the_container_of_its_runtime(cloud, prepared, case):
    function, name = case.split("/")
    event = read_event(function, name)
    s3 = cloud.client("s3")
    answer_to_cloudformation = {"Bucket": cloud.bucket, "Key": "batches/answer-to-cloudformation.json"}
    if (event.get("stageVariables") or {}).get("apiSecret"):
        event["stageVariables"]["apiSecret"] = secret_of_api(prepared, logical_id(function))
    if "ResponseURL" in event:
        event["ResponseURL"] = presigned_for_containers(cloud, answer_to_cloudformation)
    done = subprocess.run(
        [*prepared.command, "--skip-pull-image", "--event", "-", logical_id(function)],
        input=json.dumps(event),
        env=cloud.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    expected = CASES[case]
    if expected is None:
        assert answer is None, done.stderr
    else:
        assert expected.items() <= answer.items(), done.stderr
    if "ResponseURL" in event:
        assert json.load(s3.get_object(**answer_to_cloudformation)["Body"])["Status"] == "SUCCESS"


def presigned_for_containers(cloud, where):
    """Where a container may put an object: a URL that is signed for the name by which it finds this machine."""
    s3 = boto3.client(
        "s3",
        REGION,
        endpoint_url=f"http://{HOST_OF_CONTAINERS}:{cloud.emulator.port}",
        aws_access_key_id=ROOT_ACCESS_KEY_ID,
        aws_secret_access_key=cloud.emulator.secret_access_key,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    return s3.generate_presigned_url("put_object", Params=where | {"ContentType": ""})


def secret_of_api(prepared, function):
    """What only API Gateway adds to a request; functions that do not ask for it have none."""
    return json.loads(prepared.settings.read_text())[function].get("API_SECRET", "none")


def logical_id(function):
    return "".join(word.capitalize() for word in function.split("_")) + "Function"
