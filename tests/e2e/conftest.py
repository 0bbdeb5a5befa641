"""A local cloud of the tests' own: the emulator with IAM checking on, PostgreSQL over TLS, the real stack."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cloud import LocalCloud, running

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cloud(pytestconfig: pytest.Config) -> Iterator[LocalCloud]:
    """A running cloud with the deployed stack, shared by all tests and stopped after the last one.

    What tests leave in it stays there, so each uses names of its own.
    """
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(what: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"local cloud: {what}", flush=True)  # noqa: T201 - starting it takes a while

    with running(PROJECT / ".local-test", say) as started:
        yield started
