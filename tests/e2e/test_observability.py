"""What the deployed stack writes to its log: metrics as CloudWatch reads them, and what the saved queries ask for.

The emulator keeps logs, and neither extracts metrics from them nor evaluates metric filters, so the log is what is
looked at.
"""

import json
import re
import time

import pytest
import requests
from support.drops import make_drop
from support.functions import PROJECT
from support.observed import read_document
from support.operators import eventually, hire
from support.pipeline import TOPIC_PREFIX
from support.templates import read_template

MAC, SILENT_MAC = "02:0B:5E:00:00:01", "02:0B:5E:00:00:02"
GROUP = "/esp32-ota/ota/functions"
# What only AWS writes: the platform's and the runtime's lines, and those of Step Functions.
NOT_FROM_FUNCTIONS = {"record.status", "errorType", "errorMessage", "type"}
# What there would be if a function failed, a rollout waited, a person acted or a device registered itself. Other tests
# look at these lines.
NOTHING_LIKE_IT = {"exception", "exception_name", "advance.why", "action", "claim"}


class Log:
    """The functions' log from now on."""

    def __init__(self, cloud):
        self._logs = cloud.client("logs").get_paginator("filter_log_events")
        self._since = int(time.time() * 1000)

    def documents(self):
        for page in self._logs.paginate(logGroupName=GROUP, startTime=self._since):
            for entry in page["events"]:
                if entry["message"].startswith("{"):
                    yield json.loads(entry["message"])

    def lines(self, message, **fields):
        """Those with this message and these fields."""
        wanted = {"message": message, **fields}
        return [line for line in self.documents() if all(line.get(name) == value for name, value in wanted.items())]

    def counted(self, name, **dimensions):
        """The sum of a metric with exactly these dimensions."""
        points = [point for document in self.documents() if "_aws" in document for point in read_document(document)]
        assert {point.namespace for point in points} <= {"esp32-ota/ota"}
        return sum(point.value for point in points if (point.name, point.dimensions) == (name, dimensions))


@pytest.fixture(scope="module")
def log(cloud):
    return Log(cloud)


@pytest.fixture(scope="module")
def released(pipeline, log, new_product):
    product = new_product("observed")
    drop = make_drop(product=product, version="2.0.0")
    pipeline.release(f"{product}/app", drop)
    return product, drop


@pytest.fixture(scope="module")
def rejected(pipeline, log, new_product):
    """The name of a drop that was rejected, and its alert."""
    product = new_product("observed")
    pipeline.release(f"{product}/app", make_drop(product=product, image=b"no image"))
    return product, pipeline.alert(f"rejected/{product}/app.reason.json")


@pytest.fixture(scope="module")
def reported(cloud, released, log):
    """A device that failed for a reason of its own invention, and then sent something that is not a status."""
    _, drop = released
    cloud.device(MAC)
    with cloud.subscriber(MAC) as device:
        status = {"release_id": drop.release_id, "state": "failed", "reason": "gremlins 4711", "version": "2.0.0"}
        device.publish(f"{TOPIC_PREFIX}/{MAC}/status", json.dumps(status))
        device.publish(f"{TOPIC_PREFIX}/{MAC}/status", "hello")
    eventually(
        lambda: log.lines("status recorded", mac=MAC) and log.lines("status dropped", mac=MAC), "line for each status"
    )


@pytest.fixture(scope="module")
def asked(cloud, released, log):
    """The download API by a device, and the operators' API by a person, whose ARN this is."""
    product, _ = released
    with requests.Session() as session:
        session.trust_env = False
        headers = {"x-api-key": cloud.api_key, "Range": "bytes=0-1023"}
        device = cloud.outputs["ApiUrl"]
        assert session.get(f"{device}/firmware/{product}/2.0.0", headers=headers, timeout=30).status_code == 206
        query = {"product": product, "version": "1.0.0"}
        answer = session.get(f"{device}/devices/{MAC}/update", params=query, headers=headers, timeout=30)
        assert answer.status_code == 200
    operator = hire(cloud, "observer")
    operator.get("/releases")
    return operator.arn


def test_release_is_counted_by_its_outcome_and_timed(log, released):
    product, _ = released
    for outcome in ("registered", "published"):
        assert log.counted("Releases", product=product, outcome=outcome) == 1
        assert log.counted("Releases", outcome=outcome) >= 1
    assert 0 < log.counted("TimeToDevices", product=product) < 600


def test_release_that_stops_itself_is_told_counted_and_rung_for(cloud, pipeline, log, product):
    """Its only device never reports."""
    plan = {
        "waves": [{"percent": 100, "soak": "0s"}],
        "abort": {"silent_percent": 0, "min_devices": 1, "report_timeout": "1s"},
    }
    drop = make_drop(product=product, version="3.0.0", targets=[SILENT_MAC], rollout=plan)
    pipeline.release(f"{product}/app", drop)
    alert = pipeline.alert(f"{product} 3.0.0 was withdrawn because 100.0 % did not finish in time (1 of 1)")
    assert f"GET /releases/{drop.release_id}/devices?state=failing" in alert
    assert log.counted("Releases", product=product, outcome="aborted") == 1
    assert log.counted("Releases", product=product, outcome="published") == 0

    # What CloudWatch does with the log, and the emulator does not.
    point = {"MetricName": "Releases", "Dimensions": [{"Name": "outcome", "Value": "aborted"}], "Value": 1}
    cloud.client("cloudwatch").put_metric_data(Namespace="esp32-ota/ota", MetricData=[point])
    assert "A release stopped itself" in pipeline.alert("ReleaseAbortedAlarm")


def test_rejected_drop_is_counted_by_its_reason(log, rejected):
    product, _ = rejected
    [line] = log.lines("rejected", key=f"inbox/{product}/app.bin")
    assert line["reason"]["code"] == "image_not_esp"
    assert log.counted("DropsRejected", reason="image_not_esp") >= 1


def test_alert_of_a_rejected_drop_says_which_why_and_where(cloud, rejected):
    product, alert = rejected
    assert f'The drop "inbox/{product}/app.bin" was rejected: ' in alert
    assert "(image_not_esp)" in alert
    assert f"s3://{cloud.bucket}/rejected/{product}/app.reason.json" in alert
    assert re.search(r"Execution: arn:aws:states:\S+:execution:\S+", alert)


def test_what_a_device_says_makes_no_metric_of_its_own(log, released, reported):
    product, _ = released
    assert log.counted("DeviceStates", product=product, state="failed") == 1
    assert log.counted("DeviceFailures", reason="other") >= 1
    assert log.counted("StatusesDropped") >= 1
    with_devices_text = [line for line in log.documents() if "_aws" in line and "gremlins" in json.dumps(line)]
    assert with_devices_text == []


def test_chunk_is_logged_with_what_the_filter_counts(log, released, asked):
    product, _ = released
    [line] = eventually(lambda: log.lines("delivered", product=product), "line for the chunk")
    assert line["bytes"] == 1024


def test_person_who_called_the_operators_api_is_named(log, asked):
    [line] = eventually(lambda: log.lines("operator asked", caller=asked), "line for the operator")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/releases", 200)


def test_every_field_that_a_query_asks_for_is_in_the_log(log, released, rejected, reported, asked):
    eventually(lambda: log.lines("operator asked", caller=asked), "line for the operator")
    carried = {name for line in log.documents() for name in names_in(line)}
    resources = read_template(PROJECT / "template.yaml")["Resources"]
    queries = {name: item["Properties"] for name, item in resources.items() if item["Type"].endswith("QueryDefinition")}
    assert len(queries) >= 5
    for name, query in queries.items():
        fields = query["QueryString"].split("\n")[0].removeprefix("fields ")
        asked_for = {field.strip() for field in re.sub(r"coalesce\((\w+).*?\) as \w+", r"\1", fields).split(",")}
        absent = asked_for - carried - NOT_FROM_FUNCTIONS - NOTHING_LIKE_IT - {"@timestamp"}
        assert not absent, f"{name}: {absent}"


def names_in(line, before=""):
    for name, value in line.items():
        yield before + name
        if isinstance(value, dict):
            yield from names_in(value, f"{before}{name}.")


def test_dashboard_and_alarms_are_deployed(cloud):
    cloudwatch = cloud.client("cloudwatch")
    body = json.loads(cloudwatch.get_dashboard(DashboardName="ota-us-east-1")["DashboardBody"])
    assert set(re.findall(r"\$\{(\w+)", json.dumps(body))) == {"PROP"}
    [shown] = [widget["properties"]["alarms"] for widget in body["widgets"] if widget["type"] == "alarm"]
    deployed = cloudwatch.describe_alarms()["MetricAlarms"]
    told = {alarm["AlarmArn"]: alarm["AlarmActions"] for alarm in deployed if alarm["AlarmArn"] in shown}
    assert told == {arn: [cloud.outputs["AlertsTopicArn"]] for arn in shown}
    assert shown
