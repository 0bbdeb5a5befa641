from datetime import UTC, datetime, timedelta

import pytest
from ota_core.rules.check_in import Candidate, should_act

NOW = datetime(2026, 3, 7, tzinfo=UTC)


def candidate(version="1.4.0", *, allow_downgrade=False, expires_at=NOW + timedelta(seconds=1)):
    return Candidate(
        release_id="r", version=version, envelope="{}", allow_downgrade=allow_downgrade, expires_at=expires_at
    )


@pytest.mark.parametrize(
    ("running", "acts"),
    [
        (None, True),
        ("1.3.9", True),
        ("v1.3.9", True),  # as `git describe` has it
        ("1.4.0-rc.1", True),
        ("1.4.0", False),
        ("v1.4.0", False),
        ("1.4.0+build.7", False),  # build metadata has no precedence
        ("1.4.1", False),
        ("2.0.0-alpha", False),
        ("esp-idf: v5.1.4 1f9aa7a4b1", True),  # an Arduino core's string
        ("1", True),
    ],
)
def test_device_acts_on_a_newer_version_only(running, acts):
    assert should_act(candidate(), running, NOW) is acts


@pytest.mark.parametrize(("running", "acts"), [("1.4.1", True), ("1.4.0", False), ("v1.4.0", False), ("1.3.0", True)])
def test_device_acts_on_any_other_version_when_a_downgrade_is_meant(running, acts):
    assert should_act(candidate(allow_downgrade=True), running, NOW) is acts


@pytest.mark.parametrize("running", [None, "1.0.0", "arduino"])
def test_nobody_acts_on_an_expired_release(running):
    assert not should_act(candidate(expires_at=NOW), running, NOW)
