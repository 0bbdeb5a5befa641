"""What operators may do to a release, and what follows. Pure: the release's situation is given."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ota_core.rules.release_state import ReleaseState


class Action(StrEnum):
    """What an operator asks for."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """How a release stands.

    Attributes:
        waves: how many its rollout has; 0 without a rollout.
        waves_published: how many of them went out.
        is_paused, is_promoted, is_aborted: what operators asked for before.
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
        changes: what is different after it: some of `is_paused`, `is_promoted`, `is_aborted`. Empty where the release
            already is as the operator wants it.
        needs_execution: an execution has to go on with the release now, or had to; a pause can wait for the next look.
    """

    changes: dict[str, bool]
    needs_execution: bool


class ActionRefused(Exception):  # noqa: N818 - what happens to it
    """The release's situation, in `state` or more precisely in the text, does not allow the action."""

    def __init__(self, why: str, state: ReleaseState) -> None:
        super().__init__(why)
        self.state = state


def judge(action: Action, wave: int | None, situation: Situation) -> Verdict:
    """Whether an action is allowed, and what it changes. What is so already is allowed, and changes nothing.

    Args:
        action: what is asked for.
        wave: the number of the wave to promote to. It makes a repeated request harmless: by then the wave is out.
        situation: of the release.

    Raises:
        ActionRefused: not in this situation.
    """
    if action is Action.ABORT:
        return _abort(situation)
    if situation.state == ReleaseState.WITHDRAWN:
        raise ActionRefused("it was withdrawn", situation.state)
    if situation.is_aborted:
        raise ActionRefused("it is being withdrawn", situation.state)
    if not situation.waves:
        raise ActionRefused("it has no rollout: its devices are told all at once", situation.state)
    if action is Action.PROMOTE:
        return _promote(wave or 0, situation)
    if situation.state == ReleaseState.PUBLISHED:
        raise ActionRefused("its rollout is over", situation.state)
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
        raise ActionRefused("no wave of it is out yet", situation.state)
    if wave > situation.waves:
        raise ActionRefused(f"its last wave is {situation.waves}", situation.state)
    if wave != situation.waves_published + 1:
        raise ActionRefused(f"its next wave is {situation.waves_published + 1}", situation.state)
    if situation.is_paused:
        raise ActionRefused("it is paused; resume it first", situation.state)
    return Verdict({} if situation.is_promoted else {"is_promoted": True}, needs_execution=True)
