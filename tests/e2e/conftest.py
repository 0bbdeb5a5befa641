"""A local cloud of the tests' own: the emulator with IAM checking on, PostgreSQL over TLS, the real stack."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_cloud import LocalCloud, running
from local_cloud.simulated_device import SimulatedDevice, build_ota_device
from support.drops import key
from support.logs import all_logs, secrets_of
from support.pipeline import Pipeline
from support.secrets import leaks

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

    with running(PROJECT / pytestconfig.getoption("cloud"), say) as started:
        yield started
        logs = dict(all_logs(started))
        assert any("START RequestId" in text for text in logs.values()), "the functions' logs were not found"
        assert leaks(logs.items(), secrets_of(started)) == [], "secrets are in the logs of this run"


@pytest.fixture(scope="session")
def pipeline(cloud: LocalCloud, proof: Callable[..., None]) -> Iterator[Pipeline]:
    """The deployed pipeline with a witness, trusting the tests' release key. In the end nothing may be lost."""
    with Pipeline(cloud) as watched:
        watched.trust(key())
        yield watched
        watched.assert_nothing_was_lost(proof)


@pytest.fixture(scope="session")
def new_product() -> Callable[[str], str]:
    """Gives product names that no other test uses."""
    numbers = itertools.count(1)
    return lambda name: f"{name}-{next(numbers):04}"  # So that none is the beginning of another.


@pytest.fixture
def product(new_product: Callable[[str], str]) -> str:
    """A product of the test's own."""
    return new_product("product")


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    return build_ota_device(tmp_path_factory.mktemp("host") / "build.log")


@pytest.fixture
def fleet(cloud, program, tmp_path):
    """Makes devices of a product; each trusts the tests' release key, as the pipeline does."""
    cloud.trust(key().public_pem.encode())
    trusted_key = tmp_path / "release.pem"
    trusted_key.write_text(key().public_pem)

    def device(mac, product, **options):
        return SimulatedDevice(
            program, cloud, tmp_path, mac=mac, product=product, trusted_key=trusted_key, version="1.0.0", **options
        )

    return device
