"""The pipeline's functions, run on the events of `sam local invoke`, over AWS and PostgreSQL in memory."""

import dataclasses
import json
import urllib.request
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from ota_core.errors import DropRejected, OtaError, RejectionCode
from ota_core.formats import contracts
from ota_core.rules.rollout import Abort, Complete, Progress, PublishWave, WaitUntil
from ota_core.stages.resolution import Resolution
from ota_core.stores.release_store import AlreadyReleased, InProgress, Registered
from ota_core.stores.rollout_store import Advance
from support.aws_calls import NotedCalls
from support.drops import key, make_drop
from support.fakes import FakeNotifier, FakeReleases, FakeRollouts, FakeTransactions, FakeWaves
from support.functions import CONTEXT, load_handler, read_event
from support.observed import read_log
from support.state_machine_types import check_document

MEMBERS = read_event("settle_drop", "archive")["members"]


@pytest.fixture
def measured(capsys):
    """What was measured since it was asked last."""
    return lambda: [(point.name, point.dimensions, point.value) for point in read_log(capsys.readouterr().out)[0]]


# --- ValidateSignature ------------------------------------------------------------------------------------------------


@pytest.fixture
def validate(s3, monkeypatch):
    boto3.client("ssm").put_parameter(Name=f"/ota/trusted-keys/{key().keyid}", Value=key().public_pem, Type="String")
    handler = load_handler(
        "validate_signature",
        monkeypatch,
        BUCKET="bucket",
        TRUSTED_KEYS_PREFIX="/ota/trusted-keys",
        SLOT_BYTES="1966080",
        DROP_GRACE_PERIOD="60",
    )
    return lambda event: handler.lambda_handler(event, CONTEXT)


def put_drop(s3, drop):
    for suffix, content in drop.members("").items():
        s3.put_object(Bucket="bucket", Key=f"inbox/sam-local/app{suffix}", Body=content)


@pytest.mark.parametrize("case", ["incomplete_drop", "after_grace_period"])
def test_incomplete_drop_is_answered_with_what_is_missing(validate, case):
    assert validate(read_event("validate_signature", case)) == {
        "outcome": "waiting",
        "missing": ["inbox/sam-local/app.bin", "inbox/sam-local/app.manifest.json"],
    }


def test_good_drop_is_answered_with_what_the_next_stages_need(s3, validate):
    drop = make_drop(targets=["02:00:00:00:00:01"])
    put_drop(s3, drop)
    answer = validate(read_event("validate_signature", "incomplete_drop"))
    assert answer["outcome"] == "accepted"
    assert [member["key"] for member in answer["members"]] == [member["key"] for member in MEMBERS]
    # What RegisterMetadata's event has.
    release = answer["release"]
    assert release.keys() == read_event("register_metadata", "new_release")["release"].keys()
    assert json.loads(release["envelope"]) == json.loads(drop.manifest)
    assert release["image"].keys() == release["targets"].keys() == {"key", "version_id", "size"}
    assert json.loads(json.dumps(answer)) == answer


def test_misfit_is_answered_as_pending_with_the_grace_period(s3, validate):
    drop = make_drop()
    put_drop(s3, type(drop)(drop.image + bytes(16), drop.manifest))
    event = read_event("validate_signature", "incomplete_drop")
    answer = validate(event)
    assert (answer["outcome"], answer["code"], answer["grace_seconds"]) == ("pending", "image_size_mismatch", 60)
    again = validate(event | {"pending": answer["members"]})
    assert (again["outcome"], again["members"]) == ("rejected", answer["members"])


def test_key_is_taken_as_it_is_and_not_unquoted(s3, validate):
    event = read_event("validate_signature", "file_of_no_drop")
    s3.put_object(Bucket="bucket", Key=event["object"]["key"], Body=b"\x7fELF")
    answer = validate(event)
    assert (answer["outcome"], answer["code"]) == ("rejected", "inbox_file_unknown")
    assert [member["key"] for member in answer["members"]] == ["inbox/sam-local/app 1.2.0+5.elf"]


def test_drop_of_another_execution_is_answered_as_nothing_to_do(s3, validate):
    put_drop(s3, make_drop())
    event = read_event("validate_signature", "incomplete_drop")
    validate(event)
    assert validate(event | {"execution": "another"})["outcome"] == "nothing_to_do"


# --- RegisterMetadata -------------------------------------------------------------------------------------------------


@pytest.fixture
def register(aws, monkeypatch):
    handler = load_handler("register_metadata", monkeypatch)
    handler.RELEASES = releases = FakeReleases()

    def call(case, outcome, **more):
        releases.error, releases.outcome = (outcome, None) if isinstance(outcome, Exception) else (None, outcome)
        return handler.lambda_handler(read_event("register_metadata", case) | more, CONTEXT)

    call.releases = releases
    return call


def test_drop_is_registered_as_it_was_validated(register):
    event = read_event("register_metadata", "new_release")
    answer = register("new_release", Registered("1.4.0"))
    release_id = event["release"]["release_id"]
    assert answer == {"outcome": "registered", "version": "1.4.0", "release_id": release_id, "is_staged": False}
    [(release, execution, taken_over_from)] = register.releases.asked
    assert (execution, taken_over_from) == (event["execution"], None)
    assert (release.release_id, release.manifest.product) == (release_id, "sam-local")
    assert (release.image_key, release.drop_members) == (event["release"]["image"]["key"], event["members"])


def test_registered_release_is_counted_and_nothing_else(register, measured):
    register("new_release", Registered("1.4.0"))
    assert measured() == [
        ("Releases", {"outcome": "registered"}, 1),
        ("Releases", {"outcome": "registered", "product": "sam-local"}, 1),
    ]
    register("new_release", Registered("1.4.0"), take_over_from="broken")
    register("same_manifest_again", AlreadyReleased("1.4.0"))
    register("same_manifest_again", InProgress("another"))
    assert measured() == []


def test_take_over_is_asked_for_by_the_owner_that_broke(register):
    register("new_release", Registered("1.4.0"), take_over_from="broken")
    assert register.releases.asked[0][2] == "broken"


def test_same_manifest_again_is_answered_with_its_owner_or_version(register):
    answer = register("same_manifest_again", InProgress("another"))
    assert (answer["outcome"], answer["owner"]) == ("in_progress", "another")
    answer = register("same_manifest_again", AlreadyReleased("1.4.0"))
    assert (answer["outcome"], answer["version"]) == ("already_released", "1.4.0")


def test_refusal_is_an_answer_and_no_error(register):
    refusal = DropRejected(RejectionCode.VERSION_DOWNGRADE, seen="1.3.0", expected="1.4.0", remedy="Raise it.")
    answer = register("new_release", refusal)
    assert answer == {"outcome": "rejected", "code": "version_downgrade", "message": refusal.message}


# --- ResolveTargets and AdvanceRollout --------------------------------------------------------------------------------


@pytest.fixture
def resolve(store, monkeypatch):
    """Resolves a release for the whole fleet, which the first event's execution owns."""
    handler = load_handler("resolve_targets", monkeypatch, BUCKET="bucket", TOPIC_PREFIX="/u", API_URL="https://a")
    waves = FakeWaves(store)
    waves.owner = read_event("resolve_targets", "only_wave")["execution"]
    release_id = waves.release().release_id
    handler.RESOLUTION = Resolution(store, waves, topic_prefix="/u", api_url="https://a")

    def call(event):
        return handler.lambda_handler(event | {"release_id": release_id}, CONTEXT)

    call.release_id = release_id
    return call


def test_wave_is_answered_with_its_batches(resolve):
    event = read_event("resolve_targets", "only_wave")
    prefix = f"batches/{resolve.release_id}"
    assert resolve(event) == {
        "outcome": "wave",
        "wave": 1,
        "key": f"{prefix}/wave-01/index.jsonl",
        "batches": 1,
        "messages": 2,
    }
    assert resolve({"execution": event["execution"]}) == {
        "outcome": "withdrawal",
        "key": f"{prefix}/withdrawal/index.jsonl",
        "batches": 3,
        "messages": 4,
    }


def test_execution_that_lost_the_release_is_told_so(resolve):
    assert resolve(read_event("resolve_targets", "lost_release")) == {"outcome": "superseded"}


@pytest.fixture
def advance(aws, monkeypatch):
    handler = load_handler("advance_rollout", monkeypatch)
    handler.ROLLOUTS = rollouts = FakeRollouts()

    def call(event, advanced):
        rollouts.advanced = advanced
        return handler.lambda_handler(event, CONTEXT)

    call.rollouts = rollouts
    return call


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (Complete(), "complete"),
        (PublishWave(2, 10, 1), "publish"),
        (WaitUntil(datetime(2026, 6, 1, tzinfo=UTC), "it soaks"), "wait"),
    ],
    ids=lambda step: step if isinstance(step, str) else "",
)
def test_next_step_is_answered_with_the_release_and_its_drop(advance, step, name):
    event = read_event("advance_rollout", "published_wave")
    numbers = Progress(waves_published=1, published_at=datetime(2026, 5, 1, tzinfo=UTC))
    answer = advance(event, Advance(step, numbers, "sam-local", "1.4.0", MEMBERS, is_end=False, is_scheduled=False))
    assert answer["step"] == name
    assert answer["release"] == {"release_id": event["release_id"], "product": "sam-local", "version": "1.4.0"}
    assert answer["members"] == MEMBERS
    assert json.loads(json.dumps(answer)) == answer
    check_document(answer, contracts.Advance)
    assert advance.rollouts.asked == [{"published_wave": 1, "takes_over": False}]


@pytest.mark.parametrize(
    ("step", "is_aborted", "outcome"),
    [
        (Complete(), False, "published"),
        (Abort("45.0 % failed (9 of 20); limit 5 %"), False, "aborted"),
        (Abort("an operator aborted it"), True, "withdrawn"),
    ],
    ids=["published", "aborted", "withdrawn"],
)
def test_release_that_ends_is_counted_by_its_outcome_and_product(advance, measured, step, is_aborted, outcome):
    event = read_event("advance_rollout", "published_wave")
    del event["published_wave"]
    numbers = Progress(waves_published=1, published_at=datetime.now(UTC), is_aborted=is_aborted)
    ended = Advance(step, numbers, "sam-local", "1.4.0", MEMBERS, is_end=True, is_scheduled=False)
    advance(event, ended)
    assert measured() == [
        ("Releases", {"outcome": outcome}, 1),
        ("Releases", {"outcome": outcome, "product": "sam-local"}, 1),
    ]
    advance(event, dataclasses.replace(ended, is_end=False))
    assert measured() == [], "it had ended before"


def test_time_to_devices_is_that_of_the_first_wave_unless_its_signer_set_a_time(advance, measured):
    event = read_event("advance_rollout", "published_wave")
    event["started_at"] = (datetime.now(UTC) - timedelta(seconds=90)).isoformat()
    numbers = Progress(waves_published=1, published_at=datetime.now(UTC))
    first = Advance(PublishWave(2, 10, 1), numbers, "p", "1.4.0", MEMBERS, is_end=False, is_scheduled=False)
    advance(event, first)
    over_all, of_product = measured()
    assert over_all == ("TimeToDevices", {}, pytest.approx(90, abs=60))
    assert of_product == ("TimeToDevices", {"product": "p"}, over_all[2])
    advance(event, dataclasses.replace(first, is_scheduled=True))
    advance(event | {"published_wave": 2}, first)
    advance({name: value for name, value in event.items() if name != "started_at"}, first)
    assert measured() == []


def test_rollout_of_another_execution_is_left_alone(advance):
    assert advance(read_event("advance_rollout", "lost_release"), None) == {"step": "superseded"}


# --- PublishMqtt ------------------------------------------------------------------------------------------------------


def test_batch_is_published(s3, store, monkeypatch):
    handler = load_handler(
        "publish_mqtt", monkeypatch, BUCKET="bucket", PUBLISH_RATE_PER_SECOND="2000", PUBLISH_CONCURRENCY="20"
    )
    assert handler.NOTIFIER._interval == 20 / 2000, "batches at a time share the account's limit"
    handler.NOTIFIER = FakeNotifier()
    event = read_event("publish_mqtt", "batch")
    store.write(event["batch"], json.dumps({"topics": ["/u", "/u/product/p"], "retain": True, "payload": "x"}).encode())
    assert handler.lambda_handler(event, CONTEXT) == {"published": 2}
    assert handler.NOTIFIER.published == [("/u", b"x", True), ("/u/product/p", b"x", True)]


# --- SettleDrop -------------------------------------------------------------------------------------------------------


@pytest.fixture
def settle(s3, monkeypatch):
    """Settles a drop whose members are really there."""
    handler = load_handler("settle_drop", monkeypatch, BUCKET="bucket")

    def call(case):
        event = read_event("settle_drop", case)
        for member in event["members"]:
            member["version_id"] = s3.put_object(Bucket="bucket", Key=member["key"], Body=b"x")["VersionId"]
        if "discard" in event:
            stored = s3.put_object(Bucket="bucket", Key=event["discard"]["key"], Body=b"x")
            event["discard"]["version_id"] = stored["VersionId"]
        return event, handler.lambda_handler(event, CONTEXT)

    return call


def keys(s3):
    return [version["Key"] for version in s3.list_object_versions(Bucket="bucket").get("Versions", [])]


def test_good_drop_is_archived_and_its_status_says_what_became_of_it(s3, store, settle, measured):
    event, answer = settle("archive")
    assert measured() == []
    assert answer == {"settled": "archived"}
    assert keys(s3) == ["archive/sam-local/app.bin", "archive/sam-local/app.manifest.json", "status/sam-local/app.json"]
    status = read_settled(store, "status/sam-local/app.json")
    assert status == {**event["outcome"], "execution": event["execution"], "versions": event["members"]}


def test_status_names_what_could_not_leave_the_inbox(s3, store, settle):
    key = read_event("settle_drop", "archive")["members"][0]["key"]
    s3.put_object(Bucket="bucket", Key=key, Body=b"planted", StorageClass="GLACIER")
    _, answer = settle("archive")
    assert answer == {"settled": "archived"}
    [left] = read_settled(store, "status/sam-local/app.json")["left_in_inbox"]
    assert (left["key"], left["size"]) == (key, 7)


def test_bad_drop_is_rejected_with_its_reason_and_its_stored_image_discarded(s3, store, settle, measured):
    event, answer = settle("reject")
    assert measured() == [("DropsRejected", {}, 1), ("DropsRejected", {"reason": "version_downgrade"}, 1)]
    assert answer == {
        "settled": "rejected",
        "reason_key": "rejected/sam-local/app.reason.json",
        "code": event["reason"]["code"],
        "message": event["reason"]["message"],
    }
    rejected = [f"rejected/sam-local/app{suffix}" for suffix in (".bin", ".manifest.json", ".reason.json")]
    assert keys(s3) == [*rejected, "status/sam-local/app.json"]
    reason = {**event["reason"], "execution": event["execution"], "versions": event["members"]}
    assert read_settled(store, answer["reason_key"]) == reason
    assert read_settled(store, "status/sam-local/app.json") == {"state": "rejected", **reason}


def read_settled(store, key):
    """What SettleDrop wrote, a field on each line, without the time."""
    text = store.read_current(key).decode()
    assert all(line.count('": ') <= 1 for line in text.splitlines())
    document = json.loads(text)
    assert datetime.strptime(document.pop("at"), "%Y-%m-%dT%H:%M:%S%z").tzinfo
    return document


# --- AnnounceFailure --------------------------------------------------------------------------------------------------


@pytest.fixture
def announce(aws, monkeypatch):
    handler = load_handler("announce_failure", monkeypatch, ALERTS_TOPIC_ARN="arn:topic", EVENT_SOURCE="esp32-ota.ota")
    events = NotedCalls(handler.EVENTS, PutEvents=lambda: {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
    sns = NotedCalls(handler.SNS, Publish=lambda: {"MessageId": "1"})

    def call(**changes):
        event = read_event("announce_failure", "failed_execution")
        event["detail"] |= changes
        return handler.lambda_handler(event, CONTEXT)

    call.events, call.sns = events, sns
    return call


def test_failure_is_told_to_people_and_programs(announce):
    announce()
    [(_, put)], [(_, published)] = announce.events.calls, announce.sns.calls
    [entry] = put["Entries"]
    assert (entry["Source"], entry["DetailType"]) == ("esp32-ota.ota", "ReleaseFailed")
    detail = json.loads(entry["Detail"])
    assert detail["key"] == "inbox/sam-local/app.bin"
    assert detail["error"] == "InterfaceError"
    assert "drop the same files again" in detail["next_step"]
    assert published["TopicArn"] == "arn:topic"
    assert len(published["Subject"]) <= 100
    message = published["Message"]
    assert 'the drop of "inbox/sam-local/app.bin"' in message
    assert "InterfaceError: Can't create a connection to host db.example and port 5432" in message
    assert detail["next_step"] in message
    assert f"redrive-execution --execution-arn {detail['execution']}" in message
    assert '{"' not in message, "nothing that only programs like to read"


def test_failure_of_what_an_operator_started_names_the_release(announce):
    announce(input=json.dumps({"registration": {"outcome": "continued", "release_id": "a7cf"}}))
    message = announce.sns.calls[0][1]["Message"]
    assert "worked on release a7cf" in message
    assert "repeat the operator's action" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cause": None, "error": None, "status": "TIMED_OUT"}, "TIMED_OUT: \n"),
        ({"cause": "[1]", "error": "States.Runtime"}, "States.Runtime: [1]\n"),
        ({"cause": "no JSON", "error": "States.Runtime"}, "States.Runtime: no JSON\n"),
        ({"cause": "x" * 50_000, "error": "States.Runtime"}, "States.Runtime: " + "x" * 1000 + "\n"),
    ],
    ids=["none", "no object", "no JSON", "long"],
)
def test_failure_is_told_whatever_its_cause_looks_like(announce, changes, said):
    announce(**changes)
    assert said in announce.sns.calls[0][1]["Message"]


def test_name_of_an_object_cannot_pass_for_another_line_of_the_message(announce):
    announce(input=json.dumps({"detail": {"object": {"key": 'inbox/x"\n\nCall +1 555 at once'}}}))
    assert r'the drop of "inbox/x\"\n\nCall +1 555 at once".' in announce.sns.calls[0][1]["Message"]


def test_event_that_is_not_taken_fails_the_function_so_that_it_is_tried_again(announce):
    refused = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException"}]}
    announce.events.answers["PutEvents"] = lambda: refused
    with pytest.raises(RuntimeError, match="ThrottlingException"):
        announce()
    assert len(announce.sns.calls) == 1, "people are told all the same"


# --- MigrateDatabase --------------------------------------------------------------------------------------------------


@pytest.fixture
def migrate(aws, monkeypatch):
    handler = load_handler("migrate_database", monkeypatch)
    handler.DATABASE = database = FakeTransactions()
    requests = []

    class Answered:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    def urlopen(request, timeout):
        requests.append(request)
        return Answered()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)

    def call(case, error=None):
        database.error = error
        event = read_event("migrate_database", case)
        handler.lambda_handler(event, CONTEXT)
        [request] = requests
        assert (request.full_url, request.method) == (event["ResponseURL"], "PUT")
        answer = json.loads(request.data)
        assert {name: answer[name] for name in ("StackId", "RequestId", "LogicalResourceId")} == {
            name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")
        }
        return answer, database.count

    return call


def test_schema_is_migrated_when_the_stack_is_created(migrate):
    answer, transactions = migrate("create")
    assert (answer["Status"], transactions) == ("SUCCESS", 1)


def test_data_stays_when_the_stack_is_deleted(migrate):
    answer, transactions = migrate("delete")
    assert (answer["Status"], transactions) == ("SUCCESS", 0)
    assert answer["PhysicalResourceId"] == "schema"


def test_migration_that_fails_is_answered_too(migrate):
    answer, _ = migrate("create", OSError("no route to host"))
    assert answer["Status"] == "FAILED"
    assert "no route to host" in answer["Reason"]


def test_migration_that_is_refused_is_answered_and_logged_without_a_stack_trace(migrate, caplog):
    answer, _ = migrate("create", OtaError("migration_edited", "Migrations differ."))
    assert answer["Status"] == "FAILED"
    assert answer["Reason"] == "The schema was left as it is. Migrations differ."
    [record] = caplog.records
    assert (record.getMessage(), record.code, record.exc_info) == ("Migrations differ.", "migration_edited", None)
