"""Releases to as many listed devices as a large fleet has, and as many drops at once as many build servers make."""

import contextlib
import itertools
import json
import operator
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ota_core.rules.rollout import in_cohort
from support.bad_drops import CASES
from support.drops import Drop, make_drop, target_list
from support.pipeline import TOPIC_PREFIX
from support.privileges import STAGES

DEVICES = {"quick": 200, "long": 10_000}
LISTED = {"quick": 5000, "long": 1_000_000}
DROPS = {"quick": 20, "long": 500}
UPLOADERS = 8
# So many of each Lambda function may run at once, or hundreds would share this machine.
FUNCTIONS = 4
TOLD_BY_FIRST_WAVE = 100
SESSIONS = 10
FIRST_DEVICE = 0xA00000
FIRST_LISTENER = 0xAF0000
FIRST_RECIPIENT = 0xB00000
# Those that need nothing but their files, without the one whose files are larger than all the others' together.
BAD = [case for name, case in CASES.items() if not (case.earlier or case.trusts or name == "targets too many")]


@dataclass(frozen=True)
class Made:
    """A drop of a mixture.

    Attributes:
        files: their contents by name.
        outcome: "waiting", "released", or the code of the rejection.
        good: what is to be released, and on which topics that is told.
    """

    files: dict[str, bytes]
    outcome: str
    good: tuple[Drop, list[str]] | None = None


def mixed(prefix, number):
    """Half of all are good, each of a product of its own. The others are of the same products; one in five of them is
    not complete, and the rest are bad.
    """
    tens, ones = divmod(number, 10)
    product = f"{prefix}-{5 * tens + ones % 5}"
    if ones == 9:
        return Made({"app.manifest.json": make_drop(product=product).manifest}, "waiting")
    if ones >= 5:
        case = BAD[(4 * tens + ones - 5) * 17 % len(BAD)]  # The first few are of many kinds.
        return Made(case.files(product), case.code)
    if ones % 2:
        topics = [TOPIC_PREFIX, f"{TOPIC_PREFIX}/product/{product}"]
        drop = make_drop(product=product)
    else:
        macs = target_list(2, first=FIRST_RECIPIENT + 2 * number)
        topics = [f"{TOPIC_PREFIX}/{mac}" for mac in macs]
        drop = make_drop(product=product, targets_file=json.dumps(macs).encode())
    return Made(drop.members("app"), "released", (drop, topics))


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
    folder = f"batches/{drop.release_id}/wave-01/"
    batches = [json.loads(line)["batch"] for line in pipeline.read(f"{folder}index.jsonl").splitlines()]
    assert [topic for batch in batches for topic in json.loads(pipeline.read(batch))["topics"]] == wave
    told = Counter(message.topic for message in pipeline.heard(drop.release_id) if "manifest" in message.json)
    assert told == Counter(wave)


def test_every_drop_of_a_busy_minute_is_accounted_for(pipeline, product, proving, proof):
    drops = [mixed(product, number) for number in range(DROPS["long" if proving else "quick"])]
    folders = [f"{product}/{number}/" for number in range(len(drops))]

    def put(folder, made):
        return [pipeline.put(f"inbox/{folder}{name}", content) for name, content in made.files.items()]

    with few_functions(pipeline):
        began = time.monotonic()
        with ThreadPoolExecutor(UPLOADERS) as pool:
            uploads = list(pool.map(put, folders, drops))
        seconds = time.monotonic() - began
        executions = pipeline.settle(itertools.chain(*uploads), 1800)
    found = [outcomes(pipeline, folder) for folder in folders]
    made = [
        {drop.outcome: sorted(upload.version_id for upload in versions)}
        for drop, versions in zip(drops, uploads, strict=True)
    ]
    proof("objects", "drops within a minute", tried=len(drops), withstood=sum(map(operator.eq, found, made)))
    assert {execution.status for execution in executions} == {"SUCCEEDED"}
    assert found == made
    assert seconds < 60, "the machine is too slow to put so many in a minute"
    good = [drop.good for drop in drops if drop.good]
    released = pipeline.rows(
        "SELECT release_id, product, sequence, state FROM releases WHERE starts_with(product, :prefix)"
        " ORDER BY sequence",
        prefix=f"{product}-",
    )
    assert released == [
        {name: drop.fields[name] for name in ("product", "sequence")}
        | {"release_id": drop.release_id, "state": "published"}
        for drop, _ in good
    ]
    assert [sorted(message.topic for message in pipeline.heard(drop.release_id)) for drop, _ in good] == [
        topics for _, topics in good
    ]


@contextlib.contextmanager
def few_functions(pipeline):
    """Let a few functions of each kind run at a time; Lambda throttles the rest, as in an account that is too small."""
    functions = pipeline.cloud.client("lambda")
    names = [pipeline.function_name(logical_id) for logical_id in STAGES]
    for name in names:
        functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=FUNCTIONS)
    try:
        yield
    finally:
        for name in names:
            functions.delete_function_concurrency(FunctionName=name)


def outcomes(pipeline, folder):
    """Which versions put into a folder of the inbox met with which outcome."""
    found = {
        "waiting": [stored.version_id for stored in pipeline.objects(f"inbox/{folder}")],
        "released": [version_id for _, version_id in pipeline.origins(f"archive/{folder}")],
    }
    rejected = [version_id for _, version_id in pipeline.origins(f"rejected/{folder}")]
    for stored in pipeline.objects(f"rejected/{folder}"):
        if stored.key.endswith(".reason.json"):
            found[json.loads(pipeline.read(stored.key))["code"]] = rejected
    return {outcome: sorted(versions) for outcome, versions in found.items() if versions}
