import base64
import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.errors import DropRejected, RejectionCode
from ota_core.formats import envelope
from support.drops import key, make_drop, pre_authentication_encoding, seal
from support.rejections import rejected

PAYLOAD = b'{"schema": 1}'
SEALED = seal(PAYLOAD, key())


def trust(*keys):
    return {each.keyid: each.public for each in keys}.get


def edited(raw=SEALED, **changes):
    document = {name: value for name, value in (json.loads(raw) | changes).items() if value is not ...}
    return json.dumps(document).encode()


def signature(raw=SEALED, **changes):
    [entry] = json.loads(raw)["signatures"]
    return {name: value for name, value in (entry | changes).items() if value is not ...}


@given(st.text(st.characters(max_codepoint=127)), st.binary())
def test_pre_authentication_encoding_is_as_dsse_defines_it(payload_type, payload):
    assert envelope.pre_authentication_encoding(payload_type, payload) == pre_authentication_encoding(
        payload_type, payload
    )


def test_pre_authentication_encoding_of_the_specifications_example():
    # protocol.md of DSSE v1, "Test vectors"
    assert (
        envelope.pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(st.binary(max_size=2000))
def test_sealed_payload_is_opened_by_its_key(payload):
    signer = key()
    signature = signer.sign(pre_authentication_encoding(envelope.PAYLOAD_TYPE, payload))
    opened = envelope.open_envelope(envelope.seal(payload, [(signer.keyid, signature)]), trust(signer))
    assert (opened.payload, opened.keyid, opened.public_key) == (payload, signer.keyid, signer.public)
    assert envelope.parse(envelope.seal(payload, [("id", b"sig")])) == (payload, [("id", b"sig")])


@given(st.data())
def test_no_changed_byte_of_payload_or_signature_verifies(data):
    payload = bytearray(PAYLOAD)
    signature_bytes = bytearray(base64.b64decode(signature()["sig"]))
    changed = data.draw(st.sampled_from([payload, signature_bytes]))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    raw = envelope.seal(bytes(payload), [(key().keyid, bytes(signature_bytes))])
    with rejected(RejectionCode.SIGNATURE_INVALID):
        envelope.open_envelope(raw, trust(key()))


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_changed_byte_of_the_file_is_rejected_or_changes_nothing(at, change):
    raw = bytearray(SEALED)
    raw[at] ^= change
    try:
        opened = envelope.open_envelope(bytes(raw), trust(key()))
    except DropRejected:
        return
    # White space, or an alphabet of base64 for the other.
    assert opened.payload == PAYLOAD


@given(st.binary(max_size=300) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_bytes_that_nobody_signed_are_rejected(raw):
    with pytest.raises(DropRejected):
        envelope.open_envelope(raw.encode() if isinstance(raw, str) else raw, trust(key()))


def test_payload_signed_under_another_type_is_rejected():
    other = seal(PAYLOAD, key(), payload_type="application/vnd.other+json")
    with rejected(RejectionCode.PAYLOAD_TYPE_UNKNOWN, "'application/vnd.other+json'"):
        envelope.open_envelope(other, trust(key()))
    with rejected(RejectionCode.SIGNATURE_INVALID):
        envelope.open_envelope(edited(other, payloadType=envelope.PAYLOAD_TYPE), trust(key()))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"null", "it is null; expected a JSON object"),
        (b"[1]", "it is a list"),
        (edited(payload=...), "'payload' is missing; expected a string"),
        (edited(payload=None), "'payload' is null"),
        (edited(payload="not base64!"), "'payload' is not base64"),
        (edited(payload="e30"), "'payload' is not base64"),
        (edited(payload=base64.b64encode(PAYLOAD).decode() + "\n"), "'payload' is not base64"),
        (edited(payloadType=7), "'payloadType' is an integer"),
        (edited(signatures={}), "'signatures' is an object; expected a list"),
        (edited(signatures=["x"]), "a signature is a string"),
        (edited(signatures=[signature(sig=...)]), "'sig' is missing"),
        (edited(signatures=[signature(sig=True)]), "'sig' is true or false"),
        (edited(signatures=[signature(keyid=1.5)]), "'keyid' is a number with a fraction or exponent"),
        (edited(signatures=[signature()] * 5), "it has 5 signatures; expected at most 4"),
    ],
)
def test_malformed_envelope_is_rejected_with_what_was_seen(raw, message):
    with rejected(RejectionCode.ENVELOPE_MALFORMED, message):
        envelope.open_envelope(raw, trust(key()))


def test_envelope_with_unknown_members_and_url_safe_base64_is_opened():
    payload = b"\xfb\xff" * 30
    sealed = json.loads(seal(payload, key()))
    url_safe = sealed["payload"].replace("+", "-").replace("/", "_")
    assert url_safe != sealed["payload"]
    raw = edited(json.dumps(sealed), payload=url_safe, extra={"deep": [1]})
    assert envelope.open_envelope(raw, trust(key())).payload == payload


def test_one_trusted_signature_among_others_suffices():
    raw = seal(PAYLOAD, key("old"), key("new"))
    assert envelope.open_envelope(raw, trust(key("new"))).keyid == key("new").keyid
    assert envelope.open_envelope(raw, trust(key("old"))).keyid == key("old").keyid


def test_wrong_signature_tells_more_than_unknown_key():
    signatures = [signature(seal(b"other", key())), signature(seal(PAYLOAD, key("stranger")))]
    for order in (signatures, signatures[::-1]):
        with rejected(RejectionCode.SIGNATURE_INVALID):
            envelope.open_envelope(edited(signatures=order), trust(key()))


@pytest.mark.parametrize("keyid", ["", "..", "A" * 64, key().keyid.upper(), key().keyid + "\n", "/" * 64, "\0", ...])
def test_keyid_of_another_form_is_never_looked_up(keyid):
    def look_up(asked):
        pytest.fail(f"looked up {asked!r}")

    with rejected(RejectionCode.KEY_UNKNOWN):
        envelope.open_envelope(edited(signatures=[signature(keyid=keyid)]), look_up, look_up)


def test_key_stored_under_another_keyid_is_not_believed():
    with rejected(RejectionCode.KEY_UNKNOWN):
        envelope.open_envelope(SEALED, lambda _: key("stranger").public)


def test_revoked_key_is_told_from_an_unknown_one():
    with rejected(RejectionCode.KEY_REVOKED, "no longer trusted"):
        envelope.open_envelope(SEALED, trust(), lambda keyid: keyid == key().keyid)
    with rejected(RejectionCode.KEY_UNKNOWN, key().keyid):
        envelope.open_envelope(SEALED, trust(), lambda _: False)


def test_release_by_a_new_key_opens_after_the_old_one_was_revoked():
    raw = seal(PAYLOAD, key("old"), key("new"))
    assert envelope.open_envelope(raw, trust(key("new")), lambda _: True).keyid == key("new").keyid


def test_envelope_of_a_mebibyte_is_opened_and_a_larger_one_is_not():
    padded = SEALED + b" " * (envelope.MAX_ENVELOPE_BYTES - len(SEALED))
    assert envelope.open_envelope(padded, trust(key())).payload == PAYLOAD
    with rejected(RejectionCode.ENVELOPE_TOO_LARGE, "1048577 bytes"):
        envelope.open_envelope(padded + b" ", trust(key()))


def test_keyid_and_signature_are_what_openssl_makes(tmp_path):
    (tmp_path / "private.pem").write_text(key().private_pem)
    (tmp_path / "message").write_bytes(b"message")
    spki = subprocess.run(
        ["openssl", "pkey", "-in", "private.pem", "-pubout", "-outform", "DER", "-out", "spki.der"],
        cwd=tmp_path,
        check=True,
    )
    assert spki.returncode == 0
    digest = subprocess.run(
        ["openssl", "dgst", "-sha256", "-r", "spki.der"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert envelope.keyid_of(key().public) == digest.stdout.split()[0]
    made = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", "private.pem", "message"], cwd=tmp_path, check=True, capture_output=True
    )
    assert envelope.verify_signature(key().public, made.stdout, b"message")
    assert not envelope.verify_signature(key().public, made.stdout, b"massage")


def test_payload_of_an_opened_envelope_is_read_again():
    drop = make_drop()
    assert envelope.payload_of(drop.manifest.decode()) == envelope.open_envelope(drop.manifest, trust(key())).payload
