"""The table of what was withstood cannot be had by leaving things out."""

import json
import sys
from types import SimpleNamespace

import prove
import pytest


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(prove, "ROWS", tmp_path / "proof")
    return tmp_path / "proof"


def report_everything():
    for kind in prove.KINDS:
        prove.report(kind, f"some {kind}", tried=2, withstood=2)


def test_proof_holds_when_every_heading_has_rows_and_every_row_was_withstood():
    report_everything()
    assert prove.shortcomings(prove.collect(), []) == []


def test_proof_fails_when_a_suite_failed():
    report_everything()
    assert prove.shortcomings(prove.collect(), ["make fuzz"]) == ["`make fuzz` failed"]


def test_proof_fails_when_less_was_withstood_than_tried():
    report_everything()
    prove.report("cuts", "a sweep", tried=3, withstood=2)
    assert prove.shortcomings(prove.collect(), []) == ["a sweep: 2 of 3 withstood"]


def test_proof_fails_when_nothing_was_tried():
    report_everything()
    prove.report("cuts", "a sweep", tried=0, withstood=0)
    assert prove.shortcomings(prove.collect(), []) == ["a sweep: 0 of 0 withstood"]


def test_proof_fails_when_a_heading_has_no_row():
    assert prove.shortcomings(prove.collect(), []) == [
        f"nothing was reported for {heading}" for heading in prove.KINDS.values()
    ]


def test_row_that_is_reported_again_is_replaced():
    prove.report("inputs", "envelope", tried=1, withstood=0)
    prove.report("inputs", "envelope", tried=1, withstood=1)
    assert prove.collect() == [prove.Row("inputs", "envelope", 1, 1)]


def test_row_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'hopes' is not one of attacks"):
        prove.report("hopes", "all", tried=1, withstood=1)


def test_table_sums_each_heading():
    prove.report("inputs", "envelope", tried=1_000_000, withstood=1_000_000)
    prove.report("inputs", "manifest", tried=2_000_000, withstood=2_000_000)
    assert "3,000,000  inputs fuzzed" in prove.table(prove.collect())


def test_proof_ends_at_once_without_a_container_engine(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(SystemExit, match=r"no container engine answers.*\nStart Docker, or set DOCKER_HOST"):
        prove.require_container_engine()


def test_nothing_is_recorded_without_the_option(proof, proving, folder):
    proof("inputs", "envelope", tried=1, withstood=1)
    assert folder.exists() == proving


@pytest.mark.parametrize(("prove_it", "outcome"), [(True, "failed"), (False, "skipped")])
def test_skipped_test_has_failed_in_the_long_form(pytestconfig, prove_it, outcome):
    [suite] = [
        plugin
        for plugin in pytestconfig.pluginmanager.get_plugins()
        if getattr(plugin, "__file__", None) == str(prove.PROJECT / "tests" / "conftest.py")
    ]
    item = SimpleNamespace(config=SimpleNamespace(getoption=lambda name: name == "prove" and prove_it))
    hook = suite.pytest_runtest_makereport(item)
    next(hook)
    with pytest.raises(StopIteration) as returned:
        hook.send(SimpleNamespace(skipped=True, outcome="skipped"))
    assert returned.value.value.outcome == outcome


# The firmware's tests need the folder; Python's make it.
REPORT = (
    "import os, prove; os.listdir(os.environ['OTA_PROOF_DIR']);"
    " [prove.report(kind, 'all', tried=1, withstood=1) for kind in prove.KINDS]"
)


@pytest.mark.parametrize(
    ("suite", "fuzzing", "proven"), [(REPORT, "", True), (REPORT + "; exit(1)", "", False), (REPORT, "exit(1)", False)]
)
def test_suites_and_fuzzing_all_have_to_succeed(monkeypatch, tmp_path, capsys, suite, fuzzing, proven):
    report_into = f"import pathlib, prove; prove.ROWS = pathlib.Path({str(tmp_path / 'proof')!r}); "
    monkeypatch.setattr(prove, "PROJECT", tmp_path)
    monkeypatch.setattr(prove, "SUITES", [[sys.executable, "-c", report_into + suite]])
    monkeypatch.setattr(prove, "FUZZING", [sys.executable, "-c", fuzzing])
    assert prove.main() == (0 if proven else 1)
    assert bool(json.loads((tmp_path / "build" / "proof.json").read_text())["shortcomings"]) is not proven
    assert ("failed" in capsys.readouterr().out) is not proven
