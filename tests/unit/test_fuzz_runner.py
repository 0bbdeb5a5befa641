"""A fuzzer that finds something, or does nothing, fails the run."""

import importlib.util
import sys
from pathlib import Path

import prove
import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"


@pytest.fixture
def runner(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FUZZ))
    spec = importlib.util.spec_from_file_location("fuzz_runner", FUZZ / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BUILD", tmp_path)
    monkeypatch.setattr(prove, "ROWS", tmp_path / "rows")
    monkeypatch.setenv("OTA_PROOF_DIR", str(tmp_path / "rows"))
    return module


@pytest.mark.parametrize(
    ("inputs", "status", "holds", "withstood"), [(1000, 0, True, 1000), (1000, 77, False, 999), (0, 0, False, 0)]
)
def test_run_holds_only_when_inputs_were_tried_and_nothing_was_found(runner, inputs, status, holds, withstood):
    script = f"import sys; print('stat::number_of_executed_units: {inputs}', file=sys.stderr); sys.exit({status})"
    assert runner.fuzz("time", "Python", [sys.executable, "-c", script], "-runs=1") is holds
    row = prove.Row("inputs", "time (Python)", inputs, withstood)
    assert prove.collect() == [row]
    assert bool(prove.shortcomings([row], [])[:-4]) is not holds
