from datetime import UTC, datetime
from urllib.parse import quote, urlencode

import pytest
from botocore import auth
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st
from ota_core.runtime.sigv4 import PostSigner

_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
_KEYS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/", min_size=16, max_size=40)


def as_botocore_signs(credentials, url, body, seconds, monkeypatch):
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_: moment)
    request = AWSRequest("POST", url, data=body)
    SigV4Auth(credentials, "iotdata", "eu-west-1").add_auth(request)
    return dict(request.headers.items())


@given(
    topic=_TEXT,
    retain=st.booleans(),
    body=st.binary(max_size=200),
    host=st.sampled_from(["a1-ats.iot.eu-west-1.amazonaws.com", "127.0.0.1:4566"]),
    credentials=st.builds(ReadOnlyCredentials, _KEYS, _KEYS, st.none() | _KEYS),
    seconds=st.integers(0, 4_000_000_000),
)
def test_signature_is_the_one_that_botocore_makes(topic, retain, body, host, credentials, seconds):
    path, query = f"/topics/{quote(topic, safe='')}", urlencode({"qos": 1, "retain": str(retain).lower()})
    signer = PostSigner(*credentials[:3], region="eu-west-1", service="iotdata", host=host, body=body)
    with pytest.MonkeyPatch.context() as monkeypatch:
        expected = as_botocore_signs(credentials, f"https://{host}{path}?{query}", body, seconds, monkeypatch)
    assert signer.headers(path, query, seconds) == {"Host": host} | expected


def test_each_day_has_a_key_of_its_own():
    signer = PostSigner("A", "s", None, region="r", service="s", host="h", body=b"")
    first, second, again = (signer.headers("/p", "", day * 86_400)["Authorization"] for day in (0, 1, 0))
    assert first == again != second
