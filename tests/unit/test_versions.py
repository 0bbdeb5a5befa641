import itertools
import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.formats import versions

# The device's tests read the same file.
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "semver.json").read_text())
numbers = st.integers(0, 10**6).map(str)
identifiers = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=4)
pre_identifiers = identifiers.filter(lambda text: not text.isdigit() or text == "0" or text[0] != "0")
semvers = st.builds(
    lambda core, pre, build: (
        ".".join(core) + "".join(["-", ".".join(pre)] * bool(pre) + ["+", ".".join(build)] * bool(build))
    ),
    st.tuples(numbers, numbers, numbers),
    st.lists(pre_identifiers, max_size=3),
    st.lists(identifiers, max_size=3),
)


def precedence(version):
    """SemVer 2.0.0, section 11, written down a second time."""
    core, _, pre = version.partition("+")[0].partition("-")
    identifiers = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".") if pre]
    return [int(part) for part in core.split(".")], not pre, identifiers


@pytest.mark.parametrize(("lower", "higher"), list(itertools.combinations(VECTORS["ascending"], 2)))
def test_precedence_is_semvers(lower, higher):
    assert versions.is_lower(lower, higher)
    assert not versions.is_lower(higher, lower)


@pytest.mark.parametrize(("one", "other"), VECTORS["equal"])
def test_versions_of_equal_precedence(one, other):
    assert not versions.is_lower(one, other)
    assert not versions.is_lower(other, one)


@pytest.mark.parametrize("text", VECTORS["valid"] + VECTORS["ascending"])
def test_semver_is_a_version(text):
    assert versions.is_version(text)


@given(semvers, semvers)
def test_precedence_of_any_two_versions_is_semvers(one, other):
    assert versions.is_version(one)
    assert versions.is_lower(one, other) == (precedence(one) < precedence(other))


@given(semvers)
def test_build_metadata_does_not_count(version):
    bare = version.partition("+")[0]
    assert not versions.is_lower(version, bare)
    assert not versions.is_lower(bare + "+zzz", bare)


@given(semvers)
def test_next_patch_is_higher_and_a_plain_release(latest):
    patch = versions.next_patch(latest)
    assert versions.is_lower(latest, patch)
    assert all(part.isdigit() for part in patch.split("."))


def test_first_version_of_a_product_is_0_0_1():
    assert versions.next_patch(None) == "0.0.1"


@pytest.mark.parametrize("text", [*VECTORS["invalid"], "auto", "v1.2.3", "1.2.3\n", "١.٢.٣", "1١.0.0", "1.2.3-01"])
def test_text_that_is_not_semver_is_no_version(text):
    assert not versions.is_version(text)


def test_version_is_as_long_as_the_devices_store():
    assert versions.is_version("1.2.3-" + "a" * 58)
    assert not versions.is_version("1.2.3-" + "a" * 59)


@given(st.text(max_size=80))
def test_any_text_is_a_version_or_not(text):
    if versions.is_version(text):
        assert not versions.is_lower(text, text)


@pytest.mark.parametrize(
    ("app_version", "version"),
    [
        ("1.4.0", "1.4.0"),
        ("v1.4.0", "1.4.0"),
        ("v1.4.0-3-gdeadbee-dirty", "1.4.0-3-gdeadbee-dirty"),
        ("vv1.4.0", None),
        ("edeaadb-dirty", None),
        ("1", None),
        ("", None),
    ],
)
def test_app_descriptor_names_a_version_with_or_without_git_describes_v(app_version, version):
    assert versions.of_app(app_version) == version
