"""Releases to as many listed devices as a large fleet has."""

import contextlib
import json
from collections import Counter

from ota_core.rollout import in_cohort
from support.drops import make_drop, target_list
from support.pipeline import TOPIC_PREFIX

DEVICES = {"quick": 200, "long": 10_000}
LISTED = {"quick": 5000, "long": 1_000_000}
TOLD_BY_FIRST_WAVE = 100
SESSIONS = 10
FIRST_DEVICE = 0xA00000
FIRST_LISTENER = 0xAF0000


def test_every_listed_device_is_told_once(pipeline, product, proving, proof):
    macs = target_list(DEVICES["long" if proving else "quick"], first=FIRST_DEVICE)
    topics = [f"{TOPIC_PREFIX}/{mac}" for mac in macs]
    drop = make_drop(product=product, targets_file=json.dumps(macs).encode())
    with contextlib.ExitStack() as stack:
        # Each device's topic belongs to one of them.
        sessions = [
            stack.enter_context(pipeline.listener(mac, topics[number::SESSIONS]))
            for number, mac in enumerate(target_list(SESSIONS, first=FIRST_LISTENER))
        ]
        uploads = pipeline.drop(f"{product}/app", drop)
        executions = pipeline.settle(uploads, 600)
        # When the witness has heard the last one, the broker has given every session its own.
        heard = Counter(message.topic for message in pipeline.heard(drop.release_id))
        received = [
            message
            for number, session in enumerate(sessions)
            for message in session.wait_for(len(topics[number::SESSIONS]), 60)
        ]
    told = Counter(message.topic for message in received if message.json["release_id"] == drop.release_id)
    once = sum(told[topic] == heard[topic] == 1 for topic in topics)
    proof("objects", "devices told of a release, each once", tried=len(topics), withstood=once)
    assert {execution.status for execution in executions} == {"SUCCEEDED"}
    assert told == heard == Counter(topics)
    [row] = pipeline.rows(
        "SELECT target_count, state, waves_published,"
        " (SELECT count(*) FROM release_targets WHERE release = releases.id) AS recorded"
        " FROM releases WHERE release_id = :id",
        id=drop.release_id,
    )
    assert row == {"target_count": len(macs), "state": "published", "waves_published": 1, "recorded": len(macs)}


def test_every_device_of_the_longest_list_is_resolved(pipeline, product, proving, proof):
    macs = target_list(LISTED["long" if proving else "quick"])
    percent = TOLD_BY_FIRST_WAVE * 100 / len(macs)
    # Nobody reports, so the release stops after its first wave.
    rollout = {
        "waves": [{"percent": percent}, {"percent": 100}],
        "abort": {"silent_percent": 0, "min_devices": 1, "report_timeout": "1s"},
    }
    drop = make_drop(product=product, targets_file=json.dumps(macs[::-1]).encode(), rollout=rollout)
    uploads = [pipeline.upload(f"inbox/{product}/app.targets.json", drop.targets)]
    uploads += pipeline.drop(f"{product}/app", drop, "image", "manifest")
    executions = pipeline.settle(uploads, 900)
    assert {execution.status for execution in executions} == {"SUCCEEDED"}
    [recorded] = pipeline.rows(
        "SELECT count(DISTINCT mac) AS devices, count(*) AS rows, upper(min(mac::text)) AS first,"
        " upper(max(mac::text)) AS last FROM release_targets"
        " WHERE release = (SELECT id FROM releases WHERE release_id = :id)",
        id=drop.release_id,
    )
    proof("objects", "listed devices recorded for a release", tried=len(macs), withstood=recorded["devices"])
    assert recorded == {"devices": len(macs), "rows": len(macs), "first": macs[0], "last": macs[-1]}
    wave = sorted(f"{TOPIC_PREFIX}/{mac}" for mac in macs if in_cohort(drop.release_id, mac, percent))
    folder = f"work/{drop.release_id}/wave-01/"
    batches = [json.loads(line)["batch"] for line in pipeline.read(f"{folder}index.jsonl").splitlines()]
    assert [topic for batch in batches for topic in json.loads(pipeline.read(batch))["topics"]] == wave
    told = Counter(message.topic for message in pipeline.heard(drop.release_id) if "manifest" in message.json)
    assert told == Counter(wave)
