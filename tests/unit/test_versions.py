import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core import versions

# semver.org, section 11, and one more of each kind; each is lower than the next.
ORDERED = [
    "0.0.0-0",
    "0.0.0",
    "0.0.1",
    "0.9.99",
    "1.0.0-1",
    "1.0.0-2",
    "1.0.0-10",
    "1.0.0--",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "1.10.0",
    "2.0.0",
    "10.0.0",
]
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


@pytest.mark.parametrize(("lower", "higher"), list(itertools.combinations(ORDERED, 2)))
def test_precedence_is_semvers(lower, higher):
    assert versions.is_lower(lower, higher)
    assert not versions.is_lower(higher, lower)


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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "auto",
        "1",
        "1.2",
        "1.2.3.4",
        "01.2.3",
        "1.02.3",
        "1.2.3-01",
        "1.2.3-",
        "1.2.3+",
        "1.2.3-a..b",
        "1.2.3+a+b",
        "v1.2.3",
        " 1.2.3",
        "1.2.3\n",
        "1.2.3-ä",
        "١.٢.٣",
        "1١.0.0",
        "-1.2.3",
        "1.2.3 ",
        "1.2.x",
    ],
)
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
