"""The function inside database.yaml that makes the database's user."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import boto3
import pytest

from .templates import read_template

_TEMPLATE = Path(__file__).resolve().parents[2] / "database.yaml"


def load_database_user(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The function's module, with a client of rds-data that calls nobody by itself."""
    code = read_template(_TEMPLATE)["Resources"]["UserFunction"]["Properties"]["Code"]["ZipFile"]
    client = boto3.client("rds-data", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    module = ModuleType("database_user")
    with monkeypatch.context() as patch:
        patch.setattr(boto3, "client", lambda service: {"rds-data": client}[service])
        exec(compile(code, "database.yaml", "exec"), module.__dict__)  # noqa: S102 - our own code
    return module
