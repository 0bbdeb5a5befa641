import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.formats.allow_list import AllowListMalformed, is_listed, parse_allow_list

MAC = "24:6F:28:0A:0B:0C"


@pytest.mark.parametrize(
    "text",
    [
        "24:6F:28",
        "24-6f-28",
        "246f28",
        "24:6f:28:0a",
        MAC,
        MAC.lower(),
        "246F280A0B0C",
        f"# a batch\r\n\r\n  {MAC}  # one",
    ],
)
def test_device_is_listed_by_its_mac_or_by_its_beginning(text):
    assert is_listed(MAC, parse_allow_list(text.encode()))


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing", "24:6F:29", "24:6F:28:0A:0B:0D", "\ufeff24:6F:29"])
def test_device_that_no_line_names_is_not_listed(text):
    assert not is_listed(MAC, parse_allow_list(text.encode()))


def test_byte_order_mark_is_ignored():
    assert is_listed(MAC, parse_allow_list("\ufeff24:6F:28\n".encode()))


@pytest.mark.parametrize(
    "line", ["24", "24:6F", "24:6F-28", "24:6F:28:", MAC + ":00", "*", "24:6F:2", "２4:6F:28", f"{MAC},{MAC}"]
)
def test_line_that_is_nothing_of_a_mac_is_reported_with_its_number(line):
    with pytest.raises(AllowListMalformed, match="line 2 is") as caught:
        parse_allow_list(f"24:6F:28\n{line}\n".encode())
    assert caught.value.code == "allow_list_malformed"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw):
    try:
        entries = parse_allow_list(raw)
    except AllowListMalformed:
        return
    assert all(len(entry) in range(6, 13, 2) and int(entry, 16) >= 0 for entry in entries)


@given(st.sets(st.binary(min_size=6, max_size=6), max_size=20), st.binary(min_size=6, max_size=6))
def test_list_of_macs_lists_these_and_no_other(macs, other):
    entries = parse_allow_list("\n".join(mac.hex(":") for mac in macs).encode())
    assert is_listed(other.hex(":").upper(), entries) == (other in macs)
    assert all(is_listed(mac.hex(":").upper(), entries) for mac in macs)
