"""The functions' handlers, loaded as Lambda loads them: settings in the environment, and read at import."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FUNCTIONS = Path(__file__).resolve().parents[2] / "functions"
_SETTINGS = {
    "DATABASE_HOST": "db.example",
    "DATABASE_PORT": "5432",
    "DATABASE_NAME": "ota",
    "DATABASE_USER": "ota",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "POWERTOOLS_TRACE_DISABLED": "1",
}


def load(function: str, monkeypatch: pytest.MonkeyPatch, **settings: str) -> ModuleType:
    """Import a function's handler with these settings and those that every function may need."""
    for name, value in (_SETTINGS | settings).items():
        monkeypatch.setenv(name, value)
    file = FUNCTIONS / function / "handler.py"
    spec = importlib.util.spec_from_file_location(f"{function}_handler", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
