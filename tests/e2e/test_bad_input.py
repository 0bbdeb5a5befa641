"""What is wrong with a drop is said, in the bucket, to people and to programs; and nothing else changes.

Every case is dropped through S3, on the deployed stack.
"""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ota_core.errors import RejectionCode
from support.bad_drops import CASES, ONE_MAC
from support.drops import Drop, make_drop
from support.pipeline import TOPIC_PREFIX, Pipeline, Stored, Upload


@dataclass(frozen=True)
class Dropped:
    """A case that was dropped, after all its executions have ended; `statuses` are theirs."""

    product: str
    earlier: Drop | None
    uploads: list[Upload]
    statuses: set[str]

    @property
    def version_ids(self) -> set[str]:
        return {upload.version_id for upload in self.uploads}

    def inbox(self, pipeline: Pipeline) -> list[Stored]:
        return pipeline.objects(f"inbox/{self.product}/")

    def reason_keys(self, pipeline: Pipeline) -> list[str]:
        rejected = pipeline.objects(f"rejected/{self.product}/")
        return [stored.key for stored in rejected if stored.key.endswith(".reason.json")]

    def is_about(self, detail: dict[str, Any]) -> bool:
        """Whether an event is about this drop."""
        return bool(self.version_ids & {member["version_id"] for member in detail.get("members", [])})


def test_every_code_has_a_case():
    # A file that cannot be read cannot be moved either: tests/e2e/test_attacks.py.
    assert {case.code for case in CASES.values()} | {RejectionCode.INBOX_FILE_UNREADABLE} == set(RejectionCode)


@pytest.fixture(scope="module")
def dropped(pipeline, new_product):
    """Every case, dropped; several at a time, because some wait for a member that never comes."""

    def drop(name):
        case = CASES[name]
        product = new_product(name.replace(" ", "-"))
        for signer in case.trusts:
            pipeline.trust(signer)
        before = case.earlier and case.earlier(product)
        if before:
            pipeline.release(f"{product}/earlier", before)
        for signer in case.distrusts:
            pipeline.cloud.distrust(signer.keyid)
        uploads = [pipeline.put(f"inbox/{product}/{file}", content) for file, content in case.files(product).items()]
        executions = pipeline.settle(uploads, 120)
        return Dropped(product, before, uploads, {execution.status for execution in executions})

    with ThreadPoolExecutor(6) as pool:
        running = {name: pool.submit(drop, name) for name in CASES}
        yield lambda name: running[name].result()


@pytest.mark.parametrize("name", CASES)
def test_bad_drop_is_rejected_with_a_reason(pipeline, dropped, name):
    case, drop = CASES[name], dropped(name)
    assert drop.statuses == {"SUCCEEDED"}
    assert drop.inbox(pipeline) == []
    # Nothing is lost: the very versions that were dropped lie there, beside the reason.
    assert {origin[1] for origin in pipeline.origins(f"rejected/{drop.product}/")} == drop.version_ids
    [reason_key] = drop.reason_keys(pipeline)
    reason = json.loads(pipeline.read(reason_key))
    assert reason.keys() == {"code", "message", "stage", "at", "execution", "versions"}
    assert (reason["code"], reason["stage"]) == (case.code, case.stage)
    assert case.seen in reason["message"]
    assert re.search(r"; expected .+\. .+\.$", reason["message"], re.DOTALL)
    age = datetime.now(UTC) - datetime.strptime(reason["at"], "%Y-%m-%dT%H:%M:%S%z")
    assert timedelta(0) <= age < timedelta(minutes=10)
    assert {(version["key"], version["version_id"]) for version in reason["versions"]} == {
        (upload.key, upload.version_id) for upload in drop.uploads
    }


@pytest.mark.parametrize("name", CASES)
def test_bad_drop_is_announced_once_to_people_and_once_to_programs(pipeline, dropped, name):
    case, drop = CASES[name], dropped(name)
    [reason_key] = drop.reason_keys(pipeline)
    alert = pipeline.alert(reason_key)
    assert case.code in alert
    assert case.seen in alert
    event = pipeline.event("ReleaseRejected", lambda detail: detail.get("reason_key") == reason_key)
    assert event["code"] == case.code
    assert len(pipeline.alerts(f"/{drop.product}/")) == 1
    assert pipeline.events(drop.is_about) == ["ReleaseRejected"]


@pytest.mark.parametrize("name", CASES)
def test_bad_drop_leaves_no_trace_in_releases(pipeline, dropped, name):
    drop = dropped(name)
    earlier = [drop.earlier.release_id] if drop.earlier else []
    assert [row["release_id"] for row in pipeline.releases(drop.product)] == earlier
    lines = pipeline.rows(
        "SELECT latest_version, last_sequence FROM products WHERE product = :product", product=drop.product
    )
    assert lines == [
        {"latest_version": row["version"], "last_sequence": row["sequence"]} for row in pipeline.releases(drop.product)
    ]
    assert [stored.version_id for stored in pipeline.objects(f"releases/{drop.product}/")] == [
        row["image_version_id"] for row in pipeline.releases(drop.product)
    ]
    assert {message.json["release_id"] for message in pipeline.heard_of_product(drop.product)} == set(earlier)


def test_corrected_drop_is_released_under_the_same_name(pipeline, product):
    pipeline.release(f"{product}/app", make_drop(product=product, targets=["02:00:00:00:00:0G"]))
    corrected = make_drop(product=product, targets=["02:00:00:00:00:01"])
    pipeline.release(f"{product}/app", corrected)
    assert [row["release_id"] for row in pipeline.releases(product)] == [corrected.release_id]


# --- what is no error -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "missing"),
    [("image", [".manifest.json"]), ("manifest", [".bin"]), ("targets", [".bin", ".manifest.json"])],
)
def test_lone_member_waits_and_nobody_is_alarmed(pipeline, product, member, missing):
    uploads = pipeline.drop(f"{product}/app", make_drop(product=product, targets_file=ONE_MAC), member)
    [execution] = pipeline.settle(uploads)
    assert execution.status == "SUCCEEDED"
    assert execution.output == {"outcome": "waiting", "missing": [f"inbox/{product}/app{suffix}" for suffix in missing]}
    assert [stored.version_id for stored in pipeline.objects(f"inbox/{product}/")] == [uploads[0].version_id]
    assert pipeline.alerts(product) == []
    assert pipeline.events(lambda detail: product in json.dumps(detail)) == []


def test_folder_made_in_a_console_is_left_alone(pipeline, product):
    uploads = [pipeline.put(f"inbox/{product}/", b"")]
    [execution] = pipeline.settle(uploads)
    assert execution.output["outcome"] == "nothing_to_do"
    assert len(pipeline.objects(f"inbox/{product}/")) == 1
    assert pipeline.alerts(product) == []


def test_targets_file_may_come_within_the_grace_period(pipeline, product):
    drop = make_drop(product=product, targets_file=ONE_MAC)
    uploads = pipeline.drop(f"{product}/app", drop, "image", "manifest")
    pipeline.wait_until_looked_at(uploads)  # It has found that one is missing.
    uploads += pipeline.drop(f"{product}/app", drop, "targets")
    assert_released(pipeline, product, drop, uploads, [f"{TOPIC_PREFIX}/02:00:00:00:00:01"])


def test_stale_manifest_under_the_same_name_does_not_spoil_the_next_drop(pipeline, product):
    stale, drop = make_drop(product=product, version="1.3.0"), make_drop(product=product)
    uploads = pipeline.drop(f"{product}/app", stale, "manifest")
    uploads += pipeline.drop(f"{product}/app", drop, "image")
    pipeline.wait_until_looked_at(uploads)  # It has found that the two do not fit together.
    uploads += pipeline.drop(f"{product}/app", drop, "manifest")
    assert_released(pipeline, product, drop, uploads, [TOPIC_PREFIX, f"{TOPIC_PREFIX}/product/{product}"])


def assert_released(pipeline, product, drop, uploads, topics):
    pipeline.settle(uploads)
    assert [row["release_id"] for row in pipeline.releases(product)] == [drop.release_id]
    assert sorted(message.topic for message in pipeline.heard(drop.release_id)) == topics
    assert {version_id for _, version_id in pipeline.origins(f"archive/{product}/")} == {
        upload.version_id for upload in uploads
    }
    assert pipeline.objects(f"inbox/{product}/") == []
    assert pipeline.objects(f"rejected/{product}/") == []
    assert pipeline.alerts(product) == []
