"""What operators may do in which situation, and that repeating it does nothing."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.rules.operator_actions import Action, ActionRefused, Situation, Verdict, allowed_actions, judge
from ota_core.rules.release_state import ReleaseState

ROLLING = Situation(
    state=ReleaseState.ROLLING_OUT, waves=3, waves_published=1, is_paused=False, is_promoted=False, is_aborted=False
)
situations = st.builds(
    Situation,
    state=st.sampled_from(["registered", "rolling_out", "published", "withdrawn"]),
    waves=st.integers(0, 4),
    waves_published=st.integers(0, 4),
    is_paused=st.booleans(),
    is_promoted=st.booleans(),
    is_aborted=st.booleans(),
)


def in_situation(**changes):
    return dataclasses.replace(ROLLING, **changes)


def refused(action, situation, message, wave=None):
    with pytest.raises(ActionRefused, match=message) as refusal:
        judge(action, wave, situation)
    assert refusal.value.state == situation.state


@given(st.sampled_from(Action), st.integers(0, 5), situations)
def test_action_that_was_done_is_allowed_again_and_changes_nothing(action, wave, situation):
    try:
        verdict = judge(action, wave, situation)
    except ActionRefused:
        return
    afterwards = dataclasses.replace(situation, **verdict.changes)
    assert judge(action, wave, afterwards) == Verdict({}, verdict.needs_execution)


@given(st.integers(0, 5), situations)
def test_wave_is_promoted_once_however_late_the_request_is_repeated(wave, situation):
    try:
        judge(Action.PROMOTE, wave, situation)
    except ActionRefused:
        return
    later = dataclasses.replace(situation, waves_published=max(wave, situation.waves_published), is_promoted=False)
    assert judge(Action.PROMOTE, wave, later).changes == {}


@given(situations)
def test_every_release_can_be_aborted(situation):
    verdict = judge(Action.ABORT, None, situation)
    assert verdict.needs_execution
    assert verdict.changes == ({} if situation.is_aborted or situation.state == "withdrawn" else {"is_aborted": True})


@given(st.sampled_from([Action.PAUSE, Action.RESUME, Action.PROMOTE]), situations)
def test_nothing_else_happens_to_a_release_that_is_aborted(action, situation):
    with pytest.raises(ActionRefused, match="withdrawn"):
        judge(action, 1, dataclasses.replace(situation, is_aborted=True))


@pytest.mark.parametrize("state", ["registered", "rolling_out"])
def test_pause_waits_for_the_next_look_and_resume_does_not(state):
    assert judge(Action.PAUSE, None, in_situation(state=state)) == Verdict({"is_paused": True}, needs_execution=False)
    paused = in_situation(state=state, is_paused=True)
    assert judge(Action.RESUME, None, paused) == Verdict({"is_paused": False}, needs_execution=True)


@pytest.mark.parametrize("action", [Action.PAUSE, Action.RESUME, Action.PROMOTE])
def test_release_without_a_rollout_is_only_aborted(action):
    refused(action, in_situation(waves=0), "no rollout", wave=2)


@pytest.mark.parametrize("action", [Action.PAUSE, Action.RESUME])
def test_rollout_that_is_over_is_neither_paused_nor_resumed(action):
    refused(action, in_situation(state=ReleaseState.PUBLISHED, waves_published=3), "complete")


def test_next_wave_is_promoted():
    assert judge(Action.PROMOTE, 2, ROLLING) == Verdict({"is_promoted": True}, needs_execution=True)


@pytest.mark.parametrize(
    ("changes", "wave", "message"),
    [
        ({}, 3, "the next wave is 2"),
        ({}, 0, "the next wave is 2"),
        ({"waves_published": 3}, 4, "the last wave is 3"),
        ({"waves_published": 0}, 1, "no wave has been sent yet"),
        ({"state": "registered", "waves_published": 0}, 1, "no wave has been sent yet"),
        ({"is_paused": True}, 2, "resume it first"),
    ],
)
def test_wave_that_is_not_next_is_not_promoted(changes, wave, message):
    refused(Action.PROMOTE, in_situation(**changes), message, wave)


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, ["promote 2", "pause", "abort"]),
        ({"is_promoted": True}, ["pause", "abort"]),
        ({"is_paused": True}, ["resume", "abort"]),
        ({"waves_published": 2}, ["promote 3", "pause", "abort"]),
        ({"waves_published": 3}, ["pause", "abort"]),
        ({"waves_published": 0}, ["pause", "abort"]),
        ({"state": ReleaseState.REGISTERED, "waves_published": 0}, ["pause", "abort"]),
        ({"state": ReleaseState.PUBLISHED, "waves_published": 3}, ["abort"]),
        ({"state": ReleaseState.PUBLISHED, "waves": 0}, ["abort"]),
        ({"is_aborted": True}, []),
        ({"state": ReleaseState.WITHDRAWN}, []),
    ],
)
def test_allowed_actions_are_those_that_would_change_something(changes, allowed):
    actions = allowed_actions(in_situation(**changes))
    assert [f"{action} {wave}" if wave else action for action, wave in actions] == allowed


@given(situations)
def test_every_action_that_would_change_a_release_is_among_the_allowed_ones(situation):
    def changes(action, wave):
        try:
            return judge(action, wave, situation).changes
        except ActionRefused:
            return {}

    requests = [(Action.PROMOTE, wave) for wave in range(6)]
    requests += [(action, None) for action in Action if action is not Action.PROMOTE]
    assert set(allowed_actions(situation)) == {request for request in requests if changes(*request)}
