"""What looks for secrets finds them."""

import base64

import pytest
from support.drops import key
from support.secrets import forms_in, leaks, lines_of_key

# Put together here, so that the search of the repository does not find them.
AWS_KEY = "AKIA" + "Q" * 16


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("private key", key().private_pem),
        ("AWS access key", f"key: {AWS_KEY}."),
        ("AWS secret key", "aws_secret_access_key = " + "aB3/" * 10),
        ("password in a URL", "postgresql://ota:" + "correct-horse" + "@db.example/ota"),
        ("password", 'password="' + "0123456789abcdef0123" + '"'),
        ("password", '{"api_key": "' + "0123456789abcdef0123" + '"}'),
        ("token", "gh" + "p_" + "a" * 36),
        ("token", ".".join(base64.b64encode(b'{"alg": "none"}').decode() for _ in range(3))),
        ("presigned request", "https://bucket.example/image?X-Amz-Signature=" + "0" * 64),
    ],
)
def test_secret_is_found_by_its_form(kind, text):
    assert forms_in(text) == [kind]


@pytest.mark.parametrize("text", ["postgresql://USER:" + "{password}@host/ota", "password: {secret}", "x-api-key"])
def test_text_without_a_secret_is_not_suspected(text):
    assert forms_in(text) == []


def test_secret_is_found_in_a_log_by_its_value():
    pem = key().private_pem
    secrets = {"API key": "a1b2c3d4e5", "signing key": lines_of_key(pem)[5]}
    assert leaks([("quiet.log", "nothing"), ("loud.log", "GET x-api-key a1b2c3d4e5")], secrets) == ["loud.log: API key"]
    assert leaks([("loud.log", pem.replace("\n", "\\n"))], secrets) == [
        "loud.log: signing key",
        "loud.log: private key",
    ]
