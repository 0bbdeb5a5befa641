"""The template and the state machine as data, short forms of intrinsic functions spelled out."""

from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]


class _CloudFormationLoader(yaml.SafeLoader):
    """Reads `!Sub x` as `{"Fn::Sub": x}`."""


def _intrinsic(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".")
    return {"Ref" if suffix == "Ref" else f"Fn::{suffix}": value}


_CloudFormationLoader.add_multi_constructor("!", _intrinsic)


@pytest.fixture(scope="session")
def template():
    return yaml.load((PROJECT / "template.yaml").read_text(), _CloudFormationLoader)  # noqa: S506 - a SafeLoader


@pytest.fixture(scope="session")
def resources(template):
    return template["Resources"]


@pytest.fixture(scope="session")
def state_machine():
    return yaml.safe_load((PROJECT / "statemachine" / "release_pipeline.asl.yaml").read_text())


@pytest.fixture(scope="session")
def project():
    return PROJECT
