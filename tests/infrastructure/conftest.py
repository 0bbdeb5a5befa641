"""The templates and the state machine as data."""

from pathlib import Path

import pytest
import yaml
from support.templates import read_template

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def template():
    return read_template(PROJECT / "template.yaml")


@pytest.fixture(scope="session")
def database_template():
    return read_template(PROJECT / "database.yaml")


@pytest.fixture(scope="session")
def resources(template):
    return template["Resources"]


@pytest.fixture(scope="session")
def state_machine():
    return yaml.safe_load((PROJECT / "statemachine" / "release_pipeline.asl.yaml").read_text())


@pytest.fixture(scope="session")
def project():
    return PROJECT
