import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.formats.paging import read_cursor, write_cursor


@given(st.lists(st.integers(0, 2**63) | st.text("0123456789:-T+.ABCDEF", max_size=40), max_size=2))
def test_cursor_is_read_back_and_stands_in_a_query_as_it_is(position):
    cursor = write_cursor("history", *position)
    assert read_cursor(cursor, "history") == position
    assert cursor.replace("-", "").replace("_", "").isalnum()


def test_cursor_of_another_list_is_refused():
    with pytest.raises(ValueError, match="another list"):
        read_cursor(write_cursor("releases", 7), "history")


@given(st.text())
def test_any_text_is_no_cursor(text):
    with pytest.raises(ValueError):  # noqa: PT011 - whichever it is
        read_cursor(text, "releases")
