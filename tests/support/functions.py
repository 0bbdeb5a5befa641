"""Loads the functions' handlers and the events that `sam local invoke` takes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
CONTEXT = SimpleNamespace(
    function_name="f", memory_limit_in_mb=512, invoked_function_arn="arn:f", aws_request_id="r", log_stream_name="s"
)
# Of a database that nobody reaches, in an account of nobody's.
_SETTINGS = {
    "DATABASE_HOST": "db.example",
    "DATABASE_PORT": "5432",
    "DATABASE_NAME": "ota",
    "DATABASE_USER": "ota",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "POWERTOOLS_TRACE_DISABLED": "1",
    "POWERTOOLS_METRICS_NAMESPACE": "esp32-ota/test",
}


def read_event(function: str, case: str) -> Any:
    return json.loads((PROJECT / "events" / function / f"{case}.json").read_text())


def load_handler(function: str, monkeypatch: pytest.MonkeyPatch, **settings: str) -> ModuleType:
    """A function's module, with these environment variables and those that every function may need."""
    for name, value in (_SETTINGS | settings).items():
        monkeypatch.setenv(name, value)
    file = PROJECT / "functions" / function / "handler.py"
    spec = importlib.util.spec_from_file_location(f"{function}_handler", file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
