from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.formats.preconditions import Conditions, Validators, Verdict, evaluate, format_http_date, range_applies

MODIFIED = datetime(2026, 3, 7, 8, 9, 10, tzinfo=UTC)
AT = "Sat, 07 Mar 2026 08:09:10 GMT"
BEFORE = "Sat, 07 Mar 2026 08:09:09 GMT"
AFTER = "Sat, 07 Mar 2026 08:09:11 GMT"
ETAG = '"ab12"'
IMAGE = Validators(ETAG, MODIFIED)
NOW = MODIFIED + timedelta(days=1)


@pytest.mark.parametrize(
    ("conditions", "verdict"),
    [
        ({}, Verdict.PROCEED),
        # 13.1.1 If-Match compares strongly
        ({"if_match": ETAG}, Verdict.PROCEED),
        ({"if_match": "*"}, Verdict.PROCEED),
        ({"if_match": f'"x", {ETAG}'}, Verdict.PROCEED),
        ({"if_match": f"W/{ETAG}"}, Verdict.FAILED),
        ({"if_match": '"x"'}, Verdict.FAILED),
        ({"if_match": "ab12"}, Verdict.FAILED),
        ({"if_match": ""}, Verdict.FAILED),
        # 13.1.2 If-None-Match compares weakly
        ({"if_none_match": ETAG}, Verdict.NOT_MODIFIED),
        ({"if_none_match": f"W/{ETAG}"}, Verdict.NOT_MODIFIED),
        ({"if_none_match": "*"}, Verdict.NOT_MODIFIED),
        ({"if_none_match": f'"x" ,, {ETAG} '}, Verdict.NOT_MODIFIED),
        ({"if_none_match": f'"a,b", {ETAG}'}, Verdict.NOT_MODIFIED),
        ({"if_none_match": '"x"'}, Verdict.PROCEED),
        ({"if_none_match": '"AB12"'}, Verdict.PROCEED),
        ({"if_none_match": "ab12"}, Verdict.PROCEED),
        ({"if_none_match": f'"x"{ETAG}'}, Verdict.PROCEED),
        # 13.1.3 If-Modified-Since, 13.1.4 If-Unmodified-Since
        ({"if_modified_since": AT}, Verdict.NOT_MODIFIED),
        ({"if_modified_since": AFTER}, Verdict.NOT_MODIFIED),
        ({"if_modified_since": BEFORE}, Verdict.PROCEED),
        ({"if_unmodified_since": AT}, Verdict.PROCEED),
        ({"if_unmodified_since": AFTER}, Verdict.PROCEED),
        ({"if_unmodified_since": BEFORE}, Verdict.FAILED),
        # the obsolete forms of a date; what is no date is ignored
        ({"if_modified_since": "Saturday, 07-Mar-26 08:09:10 GMT"}, Verdict.NOT_MODIFIED),
        ({"if_modified_since": "Sat Mar  7 08:09:10 2026"}, Verdict.NOT_MODIFIED),
        ({"if_modified_since": "2026-03-07T08:09:10Z"}, Verdict.PROCEED),
        ({"if_unmodified_since": "yesterday"}, Verdict.PROCEED),
        # 13.2.2: the order, and which makes which count for nothing
        ({"if_match": ETAG, "if_unmodified_since": BEFORE}, Verdict.PROCEED),
        ({"if_match": '"x"', "if_none_match": ETAG}, Verdict.FAILED),
        ({"if_match": ETAG, "if_none_match": ETAG}, Verdict.NOT_MODIFIED),
        ({"if_none_match": '"x"', "if_modified_since": AT}, Verdict.PROCEED),
    ],
)
def test_preconditions_are_evaluated_as_the_rfc_says(conditions, verdict):
    assert evaluate(Conditions(**conditions), IMAGE) is verdict


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [
        (None, True),
        (ETAG, True),
        (f" {ETAG} ", True),
        (AT, True),
        (f"W/{ETAG}", False),
        ('"x"', False),
        (f'{ETAG}, "x"', False),
        (BEFORE, False),
        (AFTER, False),  # an exact match is meant, unlike If-Unmodified-Since
        ("ab12", False),
        ("*", False),
        ("", False),
    ],
)
def test_range_is_honoured_only_when_the_image_is_still_the_one_of_if_range(if_range, applies):
    assert range_applies(Conditions(if_range=if_range), IMAGE, NOW) is applies


def test_date_is_no_strong_validator_in_the_second_of_the_release():
    assert not range_applies(Conditions(if_range=AT), IMAGE, MODIFIED + timedelta(milliseconds=999))
    assert range_applies(Conditions(if_range=AT), IMAGE, MODIFIED + timedelta(seconds=1))


@given(st.text(max_size=60), st.text('W/"*, \tab12', max_size=60))
def test_any_field_value_gets_a_verdict(text, almost):
    for value in (text, almost):
        for field in ("if_match", "if_none_match", "if_modified_since", "if_unmodified_since"):
            assert evaluate(Conditions(**{field: value}), IMAGE) in Verdict
        range_applies(Conditions(if_range=value), IMAGE, NOW)


@given(st.text(max_size=60))
def test_range_of_another_image_is_never_honoured(text):
    applies = range_applies(Conditions(if_range=text), IMAGE, NOW)
    assert not applies or text.strip(" \t") in {ETAG, AT}


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2199, 1, 1)))  # noqa: DTZ001
def test_dates_are_written_as_they_are_read(time):
    utc = time.replace(microsecond=0, tzinfo=UTC)
    image = Validators(ETAG, utc)
    conditions = Conditions(if_range=format_http_date(utc))
    assert range_applies(conditions, image, utc + timedelta(seconds=2))
