"""The long form of the suites, and what they report for it (see tools/prove.py)."""

from collections.abc import Callable, Generator

import prove
import pytest
from hypothesis import settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--prove", action="store_true", help="run the suites' long forms and record what they withstood")
    parser.addoption(
        "--cloud", default=".local-test", help="the folder of the tests' local cloud, of one run at a time"
    )


def pytest_configure(config: pytest.Config) -> None:
    # No deadlines: how long an example takes depends on what else the machine does.
    settings.register_profile("quick", deadline=None)
    settings.register_profile("prove", deadline=None, max_examples=2000)
    settings.load_profile("prove" if config.getoption("prove") else "quick")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was skipped proves nothing, so that in the long form it is a failure."""
    report = yield
    if report.skipped and item.config.getoption("prove"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def proving(pytestconfig: pytest.Config) -> bool:
    """Whether the long form is asked for."""
    return bool(pytestconfig.getoption("prove"))


@pytest.fixture(scope="session")
def proof(proving: bool) -> Callable[..., None]:
    """`prove.report` in the long form; else nothing is recorded."""

    def record(kind: str, what: str, *, tried: int, withstood: int) -> None:
        if proving:
            prove.report(kind, what, tried=tried, withstood=withstood)

    return record
