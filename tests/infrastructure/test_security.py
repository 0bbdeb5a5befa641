"""docs/security.md claims nothing that no test shows."""

import ast
import re

import pytest

# https://theupdateframework.github.io/specification/latest/#goals-and-non-goals and
# https://uptane.org/docs/latest/standard/uptane-standard section 4.2; the last ones are about what only we have.
ATTACKS = [
    "arbitrary software",
    "rollback",
    "freeze",
    "fast-forward",
    "mix-and-match",
    "wrong recipient",
    "replay",
    "endless data",
    "slow retrieval",
    "partial bundle",
    "key compromise",
    "denial of service",
    "votes by strangers",
    "code on the developer's machine",
]
ATTACKERS = [
    "write access to the inbox",
    "the right to publish MQTT to any topic",
    "the network between device and cloud",
    "nothing: an outsider with the URLs",
    "the API key (it is in every device)",
    "a provisioning claim (for its five minutes)",
    "one device's certificate",
    "an account on the developer's machine, or a web page that the developer visits, while the local cloud runs",
    "read access to the database",
    "write access to the database",
    "one signing key",
    "an operator's session",
    "the right to invoke the stack's functions directly (`lambda:InvokeFunction`)",
]


@pytest.fixture(scope="module")
def page(project):
    return (project / "docs" / "security.md").read_text()


def rows(page, first_column):
    """A table's rows, as lists of cells."""
    table = page[page.index(f"| {first_column} |") :].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def exists(project, test):
    """Whether a test of this name is run: `tests/<path>.py::<function>`, or `<program>::<suite>.<test>` of ctest."""
    file, name = test.split("::")
    if file.endswith(".py"):
        path = project / file
        return path.is_file() and any(
            isinstance(node, ast.FunctionDef) and node.name == name for node in ast.parse(path.read_text()).body
        )
    host = project / "firmware" / "host" / "tests"
    source = host / f"{file}.cpp"
    suite, _, case = name.partition(".")
    return (
        re.search(rf"\b(add_ota_test\({file}\)|add_test\(NAME {file} )", (host / "tests.cmake").read_text()) is not None
        and source.is_file()
        and re.search(rf"^TEST(_F|_P)?\({suite}, {case}\)", source.read_text(), re.MULTILINE) is not None
    )


def test_every_attack_has_a_row(page):
    assert [attack for attack, _, _ in rows(page, "attack")] == ATTACKS


def test_every_attacker_has_a_row(page):
    assert [attacker for attacker, _, _ in rows(page, "they have")] == ATTACKERS


@pytest.mark.parametrize("number", range(len(ATTACKS)), ids=ATTACKS)
def test_attack_is_shown_to_fail_by_tests_that_exist(project, page, number):
    _, rule, shown_by = rows(page, "attack")[number]
    tests = re.findall(r"`([^`]+)`", shown_by)
    assert rule
    assert tests
    assert shown_by == "<br>".join(f"`{test}`" for test in tests)
    for test in tests:
        assert exists(project, test), test


@pytest.mark.parametrize(
    "test",
    [
        "tests/unit/test_envelope.py::test_of_nothing",
        "tests/unit/test_nothing.py::test_of_nothing",
        "test_attacks::Attack.Nothing",
        "test_nothing::Attack.ExpiredRelease",
        "test_attacks::Replay.ExpiredRelease",
    ],
)
def test_test_that_is_not_there_is_noticed(project, test):
    assert not exists(project, test)
