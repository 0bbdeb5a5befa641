"""Every place that lists the states and the reasons of devices lists those of the shared vectors.

The firmware's own list is held to them by firmware/host/tests/test_formats.cpp.
"""

import itertools
import json
import re
from datetime import UTC, datetime

import pytest
import yaml
from ota_core.formats.device_status import FAILING, NOT_NEEDED, REASONS, DeviceState, DeviceStatus


@pytest.fixture(scope="module")
def states(project):
    """What the pipeline makes of each state, lowest first."""
    return by_name(project, "states", "state")


@pytest.fixture(scope="module")
def reasons(project):
    return by_name(project, "reasons", "reason")


def by_name(project, kind, key):
    vectors = json.loads((project / "tests" / "vectors" / "device_status.json").read_text())[kind]
    assert len({vector[key] for vector in vectors}) == len(vectors) > 0
    return {vector[key]: vector for vector in vectors}


def table(project, heading):
    """The rows of a table of the firmware's README, by what stands in the first column."""
    rows = (project / "firmware" / "README.md").read_text().split(heading, 1)[1].split("\n\n", 1)[0]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines() if row.startswith("| `")]
    assert len({first for first, *_ in cells}) == len(cells)
    return {first.strip("`"): rest for first, *rest in cells}


def test_pipeline_knows_these_states_and_ranks_them_so(states):
    assert [state.value for state in DeviceState] == list(states)
    assert {state.value for state in FAILING} == {name for name, state in states.items() if state["failing"]}


def test_pipeline_knows_these_reasons(reasons):
    assert set(reasons) == REASONS
    assert {name for name, reason in reasons.items() if reason["not_needed"]} == NOT_NEEDED


def test_device_fails_for_any_reason_but_that_it_needs_no_release_that_it_rejects(states, reasons):
    for (name, state), reason in itertools.product(states.items(), (*reasons, None, "made up 4711")):
        status = DeviceStatus(
            mac="AA:BB:CC:DD:EE:FF",
            release_id="0" * 32,
            state=DeviceState(name),
            progress=None,
            reason=reason,
            running_version=None,
            received_at=datetime(2026, 6, 1, tzinfo=UTC),
        )
        is_not_needed = name == "rejected" and reason in reasons and reasons[reason]["not_needed"]
        expected = (reason if reason in reasons else "other") if state["failing"] and not is_not_needed else None
        assert status.failure == expected, (name, reason)


def test_readme_of_the_firmware_explains_every_state(project, states):
    rows = table(project, "\n| state | meaning | counts as |\n")
    assert list(rows) == list(states)
    for name, (_, counts_as) in rows.items():
        state = states[name]
        expected = "failed" if state["failing"] else "installed" if state["ended"] else "under way"
        assert re.fullmatch(rf"{expected}(, except .*)?", counts_as), name


def test_readme_of_the_firmware_explains_every_reason(project, reasons):
    rows = table(project, "\n| code | meaning | what happens |\n")
    assert list(rows) == ["none", *reasons]
    for name, reason in reasons.items():
        assert rows[name][1].endswith("not counted as failed") == reason["not_needed"], name


def test_operators_are_told_how_states_are_ranked(project, states):
    told = (project / "docs" / "operators.md").read_text()
    [listed] = re.findall(r"the highest that it reported, in this order:\s+(.*?)\. ", told, re.DOTALL)
    assert re.findall(r"`(\w+)`", listed) == list(states)


def test_operators_api_names_every_state(project, states):
    definition = yaml.safe_load((project / "api" / "operator.yaml").read_text())
    assert definition["components"]["schemas"]["DeviceState"]["enum"] == list(states)
    [filtered] = [
        parameter["schema"]["enum"]
        for parameter in definition["paths"]["/releases/{release_id}/devices"]["get"]["parameters"]
        if parameter.get("name") == "state"
    ]
    assert filtered == [*states, "failing"]


def test_console_names_orders_and_colours_every_state(project, states):
    console = project / "functions" / "serve_console" / "console"
    code = "\n".join(file.read_text() for file in sorted(console.glob("*.js")))
    [labels] = re.findall(r"\bDEVICE_STATES = \{(.*?)\}", code, re.DOTALL)
    assert re.findall(r"(\w+): \"", labels) == list(states)
    [ended] = re.findall(r"\bENDED = \[(.*?)\]", code, re.DOTALL)
    assert re.findall(r"\"(\w+)\"", ended) == [name for name, state in states.items() if state["ended"]]
    [stack] = re.findall(r"\bSTACK = \[(.*?)\]", code, re.DOTALL)
    assert sorted(re.findall(r"\"(\w+)\"", stack)) == sorted(states)
    style = (console / "console.css").read_text()
    for name, state in states.items():
        assert len(re.findall(rf"--{name}: #", style)) == 2, f"{name}: one colour in light, one in dark"
        assert f".area.{name} {{" in style
        assert re.search(rf"\.swatch\.{name}\b", style)
        assert (f".bar-of.{name} {{" in style) == state["failing"], name


def test_dashboard_shows_every_state(resources, states):
    dashboard = json.loads(resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])
    [metrics] = [
        widget["properties"]["metrics"]
        for widget in dashboard["widgets"]
        if widget["properties"].get("title") == "Devices by state that they reached"
    ]
    assert sorted(metric[-1] for metric in metrics) == sorted(states)
