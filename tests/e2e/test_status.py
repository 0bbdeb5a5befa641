"""What devices report, from MQTT to what operators see."""

import contextlib
import json
import time

import pytest
from support.drops import make_drop
from support.operators import eventually, hire
from support.pipeline import TOPIC_PREFIX

MACS = [f"02:57:A7:00:00:{number:02X}" for number in range(8)]


@pytest.fixture(scope="module")
def operator(cloud):
    return hire(cloud, "status-reader")


@pytest.fixture(scope="module")
def released(pipeline, new_product):
    """Makes a release, and gives its id."""

    def make():
        product = new_product("status")
        drop = make_drop(product=product, version="2.0.0")
        pipeline.release(f"{product}/app", drop)
        return drop.release_id

    return make


@pytest.fixture(scope="module")
def release_id(released):
    """Of a release that devices of several tests report about."""
    return released()


@pytest.fixture
def quiet(cloud):
    """No status of another test is under way."""
    eventually(lambda: in_queue(cloud, "StatusQueue") == 0, "empty queue")


def status(release_id, state, **fields):
    return json.dumps(
        {"release_id": release_id, "version": "2.0.0", "state": state, "running_version": "1.0.0"} | fields
    )


def topic_of(mac):
    return f"{TOPIC_PREFIX}/{mac}/status"


def logged(cloud, since):
    """What the functions have logged since then."""
    logs = cloud.client("logs").get_paginator("filter_log_events")
    for page in logs.paginate(logGroupName="/esp32-ota/ota/functions", startTime=since):
        for event in page["events"]:
            # Only what is JSON: the runtime's own lines are not.
            if event["message"].startswith("{"):
                yield json.loads(event["message"])


def counted(cloud, since, metric):
    """The sum of a metric since then (embedded metric format)."""
    return sum(sum(entry[metric]) for entry in logged(cloud, since) if "_aws" in entry and metric in entry)


def queue_url(cloud, logical_id):
    stack = cloud.client("cloudformation")
    found = stack.describe_stack_resource(StackName="ota", LogicalResourceId=logical_id)
    return found["StackResourceDetail"]["PhysicalResourceId"]


def in_queue(cloud, logical_id, *, unseen=True):
    """How many messages a queue holds: that wait, and that a function has and did not settle."""
    names = ["ApproximateNumberOfMessages"] * unseen + ["ApproximateNumberOfMessagesNotVisible"]
    found = cloud.client("sqs").get_queue_attributes(QueueUrl=queue_url(cloud, logical_id), AttributeNames=names)
    return sum(int(found["Attributes"][name]) for name in names)


def is_known(operator, mac):
    return operator.call("GET", f"/devices/{mac}").status_code == 200


def test_what_devices_report_is_what_operators_see(cloud, pipeline, operator, released):
    release_id = released()  # Its devices are counted.
    with cloud.subscriber(MACS[0]) as first, cloud.subscriber(MACS[1]) as second:
        for state in ("downloading", "verifying", "rebooting", "installed"):
            first.publish(topic_of(MACS[0]), status(release_id, state, running_version=""))
        second.publish(topic_of(MACS[1]), status(release_id, "downloading", progress=40))
        second.publish(topic_of(MACS[1]), status(release_id, "failed", reason="image_bad_signature"))
    eventually(
        lambda: operator.get(f"/releases/{release_id}")["devices"] == {"installed": 1, "failed": 1}, "two states"
    )
    # Batches are recorded side by side, so the last state can be there before the first.
    eventually(lambda: len(operator.get(f"/devices/{MACS[0]}")["history"]) == 4, "history of four reports")
    failing = operator.get(f"/releases/{release_id}/devices", state="failing")
    assert [(device["mac"], device["reason"]) for device in failing["devices"]] == [(MACS[1], "image_bad_signature")]
    known = operator.get(f"/devices/{MACS[0]}")
    assert known["running_version"] == "2.0.0"
    assert [report["state"] for report in known["history"]] == ["installed", "rebooting", "verifying", "downloading"]
    rows = pipeline.rows(
        "SELECT upper(mac::text) AS mac, product, running_version FROM devices WHERE mac = ANY(:macs::macaddr[])"
        " ORDER BY mac",
        macs=MACS[:2],
    )
    [product] = {row["product"] for row in rows}
    assert product == operator.get(f"/releases/{release_id}")["product"]
    assert [(row["mac"], row["running_version"]) for row in rows] == [(MACS[0], "2.0.0"), (MACS[1], "1.0.0")]


def test_duplicates_and_late_messages_change_nothing(cloud, operator, release_id):
    mac = MACS[2]
    with cloud.subscriber(mac) as device:
        for state in ("installed", "rebooting", "installed", "downloading", "failed"):
            device.publish(topic_of(mac), status(release_id, state, running_version="2.0.0"))
    eventually(
        lambda: len(operator.call("GET", f"/devices/{mac}").json().get("history", [])) == 4, "history of four reports"
    )
    [seen] = [device for device in operator.get(f"/releases/{release_id}/devices")["devices"] if device["mac"] == mac]
    assert (seen["state"], seen["running_version"]) == ("installed", "2.0.0")


def test_messages_that_are_no_status_are_counted_logged_and_dropped(cloud, quiet, operator, release_id):
    given_up = in_queue(cloud, "StatusDeadLetters")
    since = int(time.time() * 1000)
    mac, nobody = MACS[5], "toaster"
    malformed = [
        ("not JSON", "status_not_json"),
        ("\x00\x01", "status_not_json"),
        ("[]", "status_malformed"),
        (status(release_id, "downloading", progress=101), "status_malformed"),
        (status(release_id, "failed", reason=["a", "list"]), "status_malformed"),
        (status("not an id", "installed"), "status_malformed"),
        (status(release_id, "exploded"), "status_state_unknown"),
        (status(release_id, "failed", reason="x" * 3000), "status_too_large"),
        (status("f" * 32, "installed"), "status_release_unknown"),
    ]
    with cloud.subscriber(mac) as device:
        for payload, _ in malformed:
            device.publish(topic_of(mac), payload)
        device.publish(topic_of(mac), status(release_id, "installed"))
    with cloud.subscriber(nobody) as device:  # Registered under a name that is not a MAC.
        device.publish(topic_of(nobody), status(release_id, "installed"))
    cloud.client("sqs").send_message(QueueUrl=queue_url(cloud, "StatusQueue"), MessageBody="by hand")
    expected = sorted([code for _, code in malformed] + ["status_topic_invalid", "status_event_malformed"])
    eventually(lambda: is_known(operator, mac), "device")
    # A batch whose function ran into its timeout, on a busy machine, comes back after a minute.
    eventually(lambda: counted(cloud, since, "StatusesDropped") >= len(expected), "count of what was dropped", 240)
    assert counted(cloud, since, "StatusesDropped") == len(expected)
    assert counted(cloud, since, "StatusesReceived") == len(expected) + 1
    assert (
        sorted(entry["code"] for entry in logged(cloud, since) if entry.get("message") == "status dropped") == expected
    )
    eventually(lambda: in_queue(cloud, "StatusQueue") == 0, "empty queue")
    assert in_queue(cloud, "StatusDeadLetters") == given_up
    assert [report["state"] for report in operator.get(f"/devices/{mac}")["history"]] == ["installed"]


@contextlib.contextmanager
def database_away(cloud):
    """The database ends every session of the pipeline, and takes no new one."""
    name = cloud.database.name
    with contextlib.closing(cloud.connect_database()) as connection:
        try:
            connection.run(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
            connection.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = :name AND application_name = 'esp32-ota'",
                name=name,
            )
            yield
        finally:
            connection.run(f"ALTER DATABASE {name} CONNECTION LIMIT -1")


def test_statuses_wait_while_the_database_is_away(cloud, quiet, pipeline, operator, release_id):
    given_up = in_queue(cloud, "StatusDeadLetters")
    url = queue_url(cloud, "StatusQueue")
    sqs = cloud.client("sqs")
    mac = MACS[6]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "2"})  # Patience is for AWS.
    try:
        with database_away(cloud), cloud.subscriber(mac) as device:
            device.publish(topic_of(mac), status(release_id, "installed", running_version="2.0.0"))
            eventually(lambda: in_queue(cloud, "StatusQueue", unseen=False) == 1, "try")
            eventually(lambda: in_queue(cloud, "StatusQueue", unseen=False) == 0, "end of it")
            assert in_queue(cloud, "StatusQueue") == 1
        eventually(lambda: is_known(operator, mac), "device")
        eventually(lambda: in_queue(cloud, "StatusQueue") == 0, "empty queue")
    finally:
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "60"})
    assert operator.get(f"/devices/{mac}")["running_version"] == "2.0.0"
    assert in_queue(cloud, "StatusDeadLetters") == given_up
