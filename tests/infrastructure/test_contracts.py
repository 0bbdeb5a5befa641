"""The state machine and the files in `events/` keep to what the functions' handlers say that they get and answer."""

import ast
import copy
import json
import re
from typing import get_args, get_type_hints

import pytest
from ota_core.formats import contracts
from ota_core.rules.release_state import ReleaseState
from support.state_machine_types import PROJECT, Misfit, Walk, check_document, contracts_of
from typeguard import TypeCheckError

FUNCTIONS = sorted(file.parent.name for file in PROJECT.glob("functions/*/handler.py"))
EVENTS = sorted(PROJECT.glob("events/*/*.json"))


def event(function, case):
    return json.loads((PROJECT / "events" / function / f"{case}.json").read_text())


def test_state_machine_sends_and_reads_what_the_contracts_have(state_machine):
    walk = Walk(state_machine)
    walk.run()
    assert set(walk.sent) == {
        asked
        for function in re.findall(r"\$\{(\w+)FunctionArn\}", json.dumps(state_machine))
        for asked, _ in contracts_of(re.sub(r"(?<!^)(?=[A-Z])", "_", function).lower())
    }


def rename(machine, state, *path, to):
    *above, last = path
    place = machine["States"][state]
    for step in above:
        place = place[step]
    place[to] = place.pop(last)


def put(machine, state, *path, value):
    *above, last = path
    place = machine["States"][state]
    for step in above:
        place = place[step]
    place[last] = value


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda m: rename(m, "RegisterMetadata", "Parameters", "execution.$", to="arn.$"), r"\['arn'\] unknown"),
        (lambda m: m["States"]["RegisterMetadata"]["Parameters"].pop("members.$"), r"\['members'\] missing"),
        (lambda m: m["States"]["RecordWave"]["Parameters"].pop("started_at.$"), "no state sends"),
        (lambda m: put(m, "ValidateAgain", "Parameters", "pending.$", value="$.validation.missing"), "'missing'"),
        (lambda m: put(m, "ArchiveDrop", "Parameters", "members.$", value="$.validation.members"), "'validation'"),
        (lambda m: put(m, "ResolveOnlyWave", "Parameters", "wave", value="1"), "ResolveWave: wave: '1'"),
        (lambda m: put(m, "ResolveTargets", "Parameters", "wave.$", value="$.advance.why"), "'why'"),
        (lambda m: put(m, "ArchiveDrop", "Parameters", "outcome", "state", value="done"), "outcome: state: 'done'"),
        (lambda m: rename(m, "SettleInvalidDrop", "Parameters", "reason", "code.$", to="id.$"), r"\['id'\] unknown"),
        (lambda m: put(m, "WhatIsNext", "Choices", 0, "StringEquals", value="published"), "no value ever takes"),
        (lambda m: put(m, "IsDropAccepted", "Choices", 0, "Variable", value="$.validation.verdict"), "'verdict'"),
        (lambda m: put(m, "AwaitRightMember", "SecondsPath", value="$.validation.message"), "expected <class 'int'>"),
        (lambda m: put(m, "PublishBatches", "ItemReader", "Parameters", "Key.$", value="$.resolution.index"), "index"),
        (lambda m: put(m, "ReleasePublished", "OutputPath", value="$.advanced"), "'advanced'"),
        (lambda m: put(m, "AlertRejection", "Parameters", "Message.$", value="States.Format('{}', $.a.b)"), "'a'"),
        (lambda m: put(m, "DescribeOwner", "Parameters", "ExecutionArn.$", value="$.registration.arn"), "'arn'"),
        (lambda m: put(m, "DoesOwnerRun", "Choices", 0, "Variable", value="$.owner.state"), "'state'"),
    ],
)
def test_misfit_is_found(state_machine, change, found):
    changed = copy.deepcopy(state_machine)
    change(changed)
    with pytest.raises(Misfit, match=found):
        Walk(changed).run()


def test_every_function_has_contracts_and_an_event():
    assert {file.parent.name for file in EVENTS} == set(FUNCTIONS)
    for function in FUNCTIONS:
        assert contracts_of(function)


@pytest.mark.parametrize("file", EVENTS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_event_is_what_its_function_gets(file):
    check_document(json.loads(file.read_text()), *(asked for asked, _ in contracts_of(file.parent.name)))


@pytest.mark.parametrize(
    "change",
    [
        lambda event: event | {"wave": 1},
        lambda event: {name: value for name, value in event.items() if name != "members"},
        lambda event: event | {"execution": None},
        lambda event: event | {"members": [*event["members"], {"key": "inbox/app.bin", "version_id": "x"}]},
        lambda event: event | {"release": event["release"] | {"target_count": "2"}},
        lambda event: event | {"release": event["release"] | {"image": event["release"]["image"] | {"etag": "x"}}},
    ],
    ids=["unknown", "missing", "null", "last item", "nested type", "nested unknown"],
)
def test_document_that_breaks_its_contract_is_refused(change):
    good = event("register_metadata", "new_release")
    with pytest.raises(TypeCheckError):
        check_document(change(good), contracts.RegisterRelease)


def test_drop_that_became_a_release_has_a_state_of_releases():
    states = set(get_args(get_type_hints(contracts.DropOutcome)["state"]))
    assert states - {"repeated"} <= set(ReleaseState)


def test_no_function_waits_for_the_types_to_load():
    files = [*PROJECT.glob("functions/*/handler.py"), *PROJECT.glob("layers/ota_core/ota_core/**/*.py")]
    for file in files:
        for node in ast.parse(file.read_text()).body:
            assert "contracts" not in ast.unparse(node) or not isinstance(node, ast.Import | ast.ImportFrom), file
