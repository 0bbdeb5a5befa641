"""What operators may do to a release, and its effect."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ota_core.rules.release_state import ReleaseState


class Action(StrEnum):
    """What an operator can do to a release."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The state of a release, as far as actions depend on it.

    Attributes:
        waves: how many waves its rollout has; 0 without a rollout.
        waves_published: how many of them were sent.
        is_paused, is_promoted, is_aborted: what operators did before.
    """

    state: ReleaseState
    waves: int
    waves_published: int
    is_paused: bool
    is_promoted: bool
    is_aborted: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """An action that is allowed.

    Attributes:
        changes: new values of `is_paused`, `is_promoted` or `is_aborted`; empty if the action was already taken.
        needs_execution: an execution must continue the release now, or had to; a pause can wait for the next check.
    """

    changes: dict[str, bool]
    needs_execution: bool


class ActionRefused(Exception):  # noqa: N818 - what happens to it
    """The release does not allow the action; the text says why, and `state` is the release's."""

    def __init__(self, why: str, state: ReleaseState) -> None:
        super().__init__(why)
        self.state = state


def judge(action: Action, wave: int | None, situation: Situation) -> Verdict:
    """Decide whether an action is allowed, and what it changes. Repeating an action is allowed, and changes nothing.

    Args:
        action: to take.
        wave: the number of the wave to promote to. It makes a repeated request harmless: the wave was already sent.
        situation: of the release.

    Raises:
        ActionRefused: it is not allowed.
    """
    if action is Action.ABORT:
        return _abort(situation)
    if situation.state == ReleaseState.WITHDRAWN:
        raise ActionRefused("the release was withdrawn", situation.state)
    if situation.is_aborted:
        raise ActionRefused("the release is being withdrawn", situation.state)
    if not situation.waves:
        raise ActionRefused("the release has no rollout; all its devices are notified at once", situation.state)
    if action is Action.PROMOTE:
        return _promote(wave or 0, situation)
    if situation.state == ReleaseState.PUBLISHED:
        raise ActionRefused("the rollout is complete", situation.state)
    wanted = action is Action.PAUSE
    changes = {} if situation.is_paused == wanted else {"is_paused": wanted}
    return Verdict(changes, needs_execution=not wanted)


def allowed_actions(situation: Situation) -> list[tuple[Action, int | None]]:
    """The actions that would change the release now, each with the wave that it takes."""
    candidates = (
        (Action.PROMOTE, situation.waves_published + 1),
        (Action.PAUSE, None),
        (Action.RESUME, None),
        (Action.ABORT, None),
    )
    return [(action, wave) for action, wave in candidates if _would_change(action, wave, situation)]


def _would_change(action: Action, wave: int | None, situation: Situation) -> bool:
    try:
        return bool(judge(action, wave, situation).changes)
    except ActionRefused:
        return False


def _abort(situation: Situation) -> Verdict:
    is_so = situation.is_aborted or situation.state == ReleaseState.WITHDRAWN
    return Verdict({} if is_so else {"is_aborted": True}, needs_execution=True)


def _promote(wave: int, situation: Situation) -> Verdict:
    if 1 <= wave <= situation.waves_published:
        return Verdict({}, needs_execution=False)
    if situation.state != ReleaseState.ROLLING_OUT or not situation.waves_published:
        raise ActionRefused("no wave has been sent yet", situation.state)
    if wave > situation.waves:
        raise ActionRefused(f"the last wave is {situation.waves}", situation.state)
    if wave != situation.waves_published + 1:
        raise ActionRefused(f"the next wave is {situation.waves_published + 1}", situation.state)
    if situation.is_paused:
        raise ActionRefused("the rollout is paused; resume it first", situation.state)
    return Verdict({} if situation.is_promoted else {"is_promoted": True}, needs_execution=True)
