"""Operators: who may call, what they see, and what they do to releases that the pipeline works on."""

import json
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
import requests
import schemathesis
import yaml
from hypothesis import assume, settings
from local_cloud.signature import Signature
from schemathesis.specs.openapi import checks
from support.drops import Drop, make_drop
from support.esp_images import app_image
from support.operators import Operator, eventually, hire
from support.pipeline import TOPIC_PREFIX

PROJECT = Path(__file__).resolve().parents[2]
# Nothing happens by itself while a test looks.
PLAN = {"waves": [{"percent": 10, "soak": "2h"}, {"percent": 50, "soak": "2h"}, {"percent": 100, "soak": "2h"}]}
MACS = [f"02:09:E0:00:00:{number:02X}" for number in range(4)]


@pytest.fixture(scope="module")
def operator(cloud):
    return hire(cloud, "operator")


@pytest.fixture
def staged(pipeline, operator, product):
    """A release in three waves, the first of which is out."""
    drop = make_drop(product=product, version="2.0.0", rollout=PLAN)
    pipeline.drop(f"{product}/app", drop)
    eventually(lambda: state_of(operator, drop.release_id, "waves_published") == 1, "first wave")
    return drop.release_id


def state_of(operator, release_id, field):
    return operator.call("GET", f"/releases/{release_id}").json().get(field)


def actions_of(operator, release_id):
    return [(done["action"], done["caller"]) for done in operator.get(f"/releases/{release_id}")["actions"]]


def last_decision(described):
    [latest, *_] = described["decisions"]
    return latest["step"], latest["numbers"]["waves_published"]


def continuations(cloud, release_id):
    executions = cloud.client("stepfunctions")
    found = []
    for execution in cloud.executions():
        described = executions.describe_execution(executionArn=execution["executionArn"])
        if release_id in described["input"]:
            found.append(execution["executionArn"])
    return found


def pages(operator, path, listed, **query):
    """Everything that a list holds, page by page."""
    found = []
    while True:
        page = operator.get(path, **query)
        assert len(page[listed]) <= int(query["limit"])
        found += page[listed]
        if "next" not in page:
            return found
        query["after"] = page["next"]


# --- who may call -------------------------------------------------------------------------------------------------


def test_request_without_a_signature_is_refused(operator):
    answer = Operator(operator.url, "", None).call("GET", "/releases")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_signed")


def test_forged_signature_is_refused(operator):
    forged = Signature(operator.signature._credentials.access_key, "guess")
    assert Operator(operator.url, "", forged).call("GET", "/releases").status_code == 403


# --- what they do -------------------------------------------------------------------------------------------------


def test_release_is_listed_and_described(operator, staged, product):
    [listed] = operator.get("/releases", product=product, state="rolling_out")["releases"]
    assert operator.get("/releases", product=product, state="published")["releases"] == []
    described = operator.get(f"/releases/{staged}")
    assert listed.items() <= described.items()
    assert described["state"] == "rolling_out"
    assert [wave["is_published"] for wave in described["waves"]] == [True, False, False]
    assert described["manifest"]["rollout"]["waves"][0]["percent"] == 10
    assert last_decision(described) == ("wait", 1)


def test_paused_release_goes_on_where_it_was_when_it_is_resumed(cloud, operator, staged):
    for _ in range(2):
        assert operator.act(staged, "pause").json()["is_paused"] is True
    refused = operator.act(staged, "promote", wave=2)
    assert (refused.status_code, refused.json()["state"]) == (409, "rolling_out")
    for _ in range(2):
        assert operator.act(staged, "resume").json()["is_paused"] is False
    # A resumption that is repeated at once may start two: one owns the release, the other ends when it looks again.
    eventually(lambda: state_of(operator, staged, "execution") in continuations(cloud, staged), "new owner")
    assert last_decision(operator.get(f"/releases/{staged}")) == ("wait", 1)
    assert actions_of(operator, staged) == [("resume", operator.arn), ("pause", operator.arn)]


def test_promoted_wave_goes_out_once_and_its_soak_is_watched(cloud, operator, staged):
    for _ in range(2):
        assert operator.act(staged, "promote", wave=2).status_code == 200
    eventually(lambda: state_of(operator, staged, "waves_published") == 2, "second wave")
    again = operator.act(staged, "promote", wave=2)
    assert (again.status_code, again.json()["is_promoted"]) == (200, False)
    described = operator.get(f"/releases/{staged}")
    assert (described["waves_published"], described["cohort_percent"]) == (2, 50)
    assert last_decision(described) == ("wait", 2)
    assert actions_of(operator, staged) == [("promote", operator.arn)]
    assert described["actions"][0]["details"]["wave"] == 2
    assert operator.act(staged, "promote", wave=5).status_code == 409


def test_aborted_release_is_withdrawn_and_repeating_it_does_nothing(cloud, pipeline, operator, staged, product):
    assert operator.act(staged, "abort").json()["is_aborted"] is True
    eventually(lambda: state_of(operator, staged, "state") == "withdrawn", "withdrawal")
    eventually(lambda: pipeline.alerts(staged), "alert")
    assert operator.act(staged, "abort").status_code == 200
    assert len(continuations(cloud, staged)) == 1
    assert state_of(operator, staged, "withdrawn_because") == "an operator aborted it"
    assert actions_of(operator, staged) == [("abort", operator.arn)]
    download = requests.get(
        f"{cloud.environment['OTA_API_URL']}/firmware/{product}/2.0.0",
        headers={"x-api-key": cloud.environment["OTA_API_KEY"], "Accept": "*/*"},
        timeout=30,
    )
    assert download.status_code == 410
    refused = operator.act(staged, "resume")
    assert (refused.status_code, refused.json()["state"]) == (409, "withdrawn")


def test_published_release_without_waves_is_aborted(pipeline, operator, product):
    drop = make_drop(product=product, version="2.0.0")
    pipeline.release(f"{product}/app", drop)
    refused = operator.act(drop.release_id, "pause")
    assert (refused.status_code, refused.json()["state"]) == (409, "published")
    assert operator.act(drop.release_id, "abort").status_code == 200
    eventually(lambda: state_of(operator, drop.release_id, "state") == "withdrawn", "withdrawal")


def test_abort_that_nobody_went_on_with_is_made_good_by_repeating_it(cloud, pipeline, operator, staged):
    nobody = "arn:aws:states:us-east-1:000000000000:stateMachine:nobody"
    with pipeline.function_with("AuthorizeOperatorFunction", STATE_MACHINE_ARN=nobody):
        assert operator.act(staged, "abort").status_code == 503
    assert (state_of(operator, staged, "is_aborted"), state_of(operator, staged, "state")) == (True, "rolling_out")
    assert operator.act(staged, "abort").status_code == 200
    eventually(lambda: state_of(operator, staged, "state") == "withdrawn", "withdrawal")
    assert actions_of(operator, staged) == [("abort", operator.arn)]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/releases/{unknown}/actions", {"action": "abort"}, 404, "release_unknown"),
        ("GET", "/releases/{unknown}", None, 404, "release_unknown"),
        ("GET", "/releases/{unknown}/devices", None, 404, "release_unknown"),
        ("GET", "/devices/02:09:E0:FF:FF:FF", None, 404, "device_unknown"),
        ("POST", "/releases/{unknown}/actions", {"action": "explode"}, 400, "action_invalid"),
        ("PUT", "/devices/nobody/tags", {"tags": []}, 400, "mac_invalid"),
        ("PUT", "/devices/02:09:E0:FF:FF:FF/tags", {"tags": ["Ä"]}, 400, "tags_invalid"),
    ],
)
def test_call_that_makes_no_sense_is_refused(operator, method, path, body, status, code):
    answer = operator.call(method, path.format(unknown="0" * 32), body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_release_for_tags_reaches_exactly_the_devices_that_have_one(cloud, pipeline, operator, product, tmp_path):
    # Other tests tag devices too.
    berlin, paris, gold = f"site=berlin.{product}", f"site=paris.{product}", f"gold.{product}"
    given = {MACS[0]: ["beta", berlin], MACS[1]: [paris], MACS[2]: [gold], MACS[3]: []}
    for mac, tags in given.items():
        for _ in range(2):
            assert operator.call("PUT", f"/devices/{mac}/tags", {"tags": tags}).json() == {"mac": mac, "tags": tags}
    image = tmp_path / "app.bin"
    image.write_bytes(app_image(version="2.0.0"))
    command = ["ota-sign", "sign", image, "--product", product, "--target-tag", gold, "--target-tag", berlin]
    subprocess.run([*command, "--version", "2.0.0"], env=cloud.environment, check=True, capture_output=True)
    drop = Drop(image.read_bytes(), image.with_suffix(".manifest.json").read_bytes())
    pipeline.release(f"{product}/app", drop)
    described = operator.get(f"/releases/{drop.release_id}")
    assert (described["target_count"], described["manifest"]["targets"]["tags"]) == (2, [gold, berlin])
    topics = sorted(message.topic for message in pipeline.heard(drop.release_id))
    assert topics == [f"{TOPIC_PREFIX}/{mac}" for mac in (MACS[0], MACS[2])]
    assert operator.get(f"/devices/{MACS[0]}")["tags"] == ["beta", berlin]
    # Repeated calls, and those that change nothing, leave no trace.
    audited = pipeline.rows(
        "SELECT upper(mac::text) AS mac, caller, action, details FROM audit WHERE mac = ANY(CAST(:macs AS macaddr[]))"
        " ORDER BY id",
        macs=MACS,
    )
    assert audited == [
        {"mac": mac, "caller": operator.arn, "action": "tag", "details": {"before": [], "tags": tags}}
        for mac, tags in given.items()
        if tags
    ]


def test_devices_of_a_release_and_reports_of_a_device_come_in_pages(cloud, pipeline, operator, product):
    drop = make_drop(product=product, version="2.0.0")
    pipeline.release(f"{product}/app", drop)
    states = ["installed", "failed", "rolled_back", "rejected"]
    for mac, state in zip(MACS, states, strict=True):
        with cloud.subscriber(mac) as device:
            for said in ("downloading", state):
                report = {"release_id": drop.release_id, "state": said, "running_version": "1.0.0"}
                device.publish(f"{TOPIC_PREFIX}/{mac}/status", json.dumps(report | {"reason": "version_not_newer"}))
    devices = f"/releases/{drop.release_id}/devices"
    eventually(lambda: sorted(d["state"] for d in operator.get(devices)["devices"]) == sorted(states), "four states")
    assert [device["mac"] for device in pages(operator, devices, "devices", limit="3")] == MACS
    # Who rejects a release because it runs this version, or a newer one, has not failed.
    assert [d["mac"] for d in pages(operator, devices, "devices", state="failing", limit="1")] == MACS[1:3]
    assert [d["mac"] for d in operator.get(devices, state="rejected")["devices"]] == MACS[3:]
    eventually(lambda: len(operator.get(f"/devices/{MACS[1]}")["history"]) == 2, "history of two reports")
    reports = pages(operator, f"/devices/{MACS[1]}", "history", limit="1")
    assert [(one["release_id"], one["state"]) for one in reports] == [
        (drop.release_id, "failed"),
        (drop.release_id, "downloading"),
    ]


# --- the definition -----------------------------------------------------------------------------------------------


def unsigned_definition():
    """The definition as schemathesis is to see it: it cannot sign a request, and here each one is signed."""
    document = yaml.safe_load((PROJECT / "api" / "operator.yaml").read_text())
    del document["components"]["securitySchemes"]
    for path in document["paths"].values():
        for operation in path.values():
            del operation["security"]
    return document


# What the definition cannot say: which cursors there are, and which action takes a wave. And a REST API of API Gateway
# knows no 405.
NOT_CHECKED = [checks.positive_data_acceptance, checks.unsupported_method]
DEFINITION = schemathesis.openapi.from_dict(unsigned_definition())


@DEFINITION.parametrize()
@settings(max_examples=20, deadline=None)
def test_answers_are_as_the_definition_says(case, operator):
    # In the emulator's IAM, unlike AWS's, a line break is nothing that * stands for.
    assume("\n" not in unquote("".join(map(str, case.path_parameters.values()))))
    case.call_and_validate(base_url=operator.url, auth=operator.signature, excluded_checks=NOT_CHECKED)
