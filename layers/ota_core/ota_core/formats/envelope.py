"""The signed envelope: DSSE v1 with RSASSA-PKCS1-v1_5 and SHA-256.

Source: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md (PAE and verification) and envelope.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from ota_core.errors import DropRejected, RejectionCode
from ota_core.formats import strict_json
from ota_core.formats.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable

PAYLOAD_TYPE = "application/vnd.esp32-ota.manifest+json"
MAX_ENVELOPE_BYTES = 1024 * 1024
MIN_KEY_BITS = 2048
# Devices have no room for the signatures of a larger key (firmware's ota/signature_verifier.hpp).
MAX_KEY_BITS = 4096
# Devices read this many (firmware's ota/envelope.hpp), and each one costs a key look-up.
MAX_SIGNATURES = 4

_KEYID = re.compile(r"[0-9a-f]{64}")
_RE_SIGN = "Sign the image again with `ota-sign sign`"


@dataclass(frozen=True, slots=True)
class OpenedEnvelope:
    """A payload that a trusted key vouches for.

    Attributes:
        payload: the signed bytes.
        keyid: the key that signed them.
        public_key: that key; the image must be signed with it too.
    """

    payload: bytes
    keyid: str
    public_key: rsa.RSAPublicKey


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """PAE(type, body) of DSSE v1: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def keyid_of(public_key: rsa.RSAPublicKey) -> str:
    """SHA-256, hex, of the key's DER SubjectPublicKeyInfo (RFC 5280 section 4.1)."""
    spki = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def is_keyid(text: str) -> bool:
    """Whether the text has the form of a keyid, so that it can safely be part of a parameter's name."""
    return _KEYID.fullmatch(text) is not None


def verify_signature(public_key: rsa.RSAPublicKey, signature: bytes, message: bytes) -> bool:
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 8.2.2)."""
    return verify_digest(public_key, signature, hashlib.sha256(message).digest())


def verify_digest(public_key: rsa.RSAPublicKey, signature: bytes, digest: bytes) -> bool:
    """`verify_signature` for a message whose SHA-256 is already known."""
    try:
        public_key.verify(signature, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def seal(payload: bytes, signatures: list[tuple[str, bytes]]) -> bytes:
    """Write the envelope for a payload and its (keyid, signature) pairs."""
    return json.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": keyid, "sig": base64.b64encode(signature).decode()} for keyid, signature in signatures
            ],
        },
        separators=(",", ":"),
    ).encode()


def compact(envelope: bytes) -> bytes:
    """An envelope reduced to its payload and signatures, in base64's standard alphabet.

    Raises:
        DropRejected: not a DSSE envelope with our payload type.
    """
    return seal(*parse(envelope))


def payload_of(envelope: str) -> bytes:
    """The payload of an envelope that was verified before; nothing is verified here."""
    return parse(envelope.encode())[0]


def open_envelope(
    raw: bytes,
    trusted_key: Callable[[str], rsa.RSAPublicKey | None],
    was_trusted: Callable[[str], bool] = lambda _: False,
) -> OpenedEnvelope:
    """Verify an envelope and return what was signed, without parsing the payload.

    One good signature by a trusted key suffices (DSSE: threshold 1), so that a release can be signed with the old
    and the new key while keys are being rotated.

    Args:
        raw: the envelope's bytes, at most `MAX_ENVELOPE_BYTES`.
        trusted_key: returns the trusted public key for a keyid, or None. A keyid is only a hint: it is looked up only
            if it has the right form, and the key is checked against it.
        was_trusted: whether an untrusted key was trusted before, so that the reason can say that it was revoked.

    Raises:
        DropRejected: with the most telling reason among the signatures.
    """
    payload, signatures = parse(raw)
    message = pre_authentication_encoding(PAYLOAD_TYPE, payload)
    reasons = []
    for keyid, signature in signatures:
        public_key = trusted_key(keyid) if is_keyid(keyid) else None
        if public_key is None or keyid_of(public_key) != keyid:
            revoked = is_keyid(keyid) and was_trusted(keyid)
            reasons.append(_revoked_key(keyid) if revoked else _unknown_key(keyid))
        elif not MIN_KEY_BITS <= public_key.key_size <= MAX_KEY_BITS:
            reasons.append(_wrong_size(keyid, public_key.key_size))
        elif not verify_signature(public_key, signature, message):
            reasons.append(_bad_signature(keyid))
        else:
            return OpenedEnvelope(payload, keyid, public_key)
    # A bad signature by a trusted key says more than an unknown key.
    raise max(reasons, key=lambda reason: reason.rejection_code is not RejectionCode.KEY_UNKNOWN)


def parse(raw: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Take an envelope apart without checking its signatures: the payload, and (keyid, signature) pairs.

    Unknown members are ignored, as DSSE requires.

    Raises:
        DropRejected: not a DSSE envelope with our payload type.
    """
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise envelope_too_large(len(raw))
    try:
        document = strict_json.loads(raw)
    except ValueError as error:
        raise DropRejected(
            RejectionCode.ENVELOPE_NOT_JSON,
            seen=f"the manifest file is not JSON ({error})",
            expected="a DSSE envelope",
            remedy=f"{_RE_SIGN} and drop the .manifest.json that it writes.",
        ) from error
    fields = Fields(document, "it", _malformed)
    payload_type = fields.take("payloadType", str)
    if payload_type != PAYLOAD_TYPE:
        raise DropRejected(
            RejectionCode.PAYLOAD_TYPE_UNKNOWN,
            seen=f"payloadType is {payload_type[:100]!r}",
            expected=repr(PAYLOAD_TYPE),
            remedy=f"{_RE_SIGN}.",
        )
    payload = _base64(fields.take("payload", str), "payload")
    listed = fields.take("signatures", list)
    if not listed:
        raise DropRejected(
            RejectionCode.SIGNATURE_MISSING,
            seen="the envelope has no signature",
            expected="at least one by a trusted key",
            remedy=f"{_RE_SIGN}.",
        )
    if len(listed) > MAX_SIGNATURES:
        raise _malformed(f"it has {len(listed)} signatures", f"at most {MAX_SIGNATURES}")
    return payload, [_signature(Fields(item, "a signature", _malformed)) for item in listed]


def _signature(fields: Fields) -> tuple[str, bytes]:
    # DSSE equates a missing keyid with an empty one, which matches no key.
    return fields.take("keyid", str, default=""), _base64(fields.take("sig", str), "sig")


def _base64(text: str, name: str) -> bytes:
    try:
        # DSSE allows the URL-safe alphabet too.
        return strict_json.decode_base64(text.replace("-", "+").replace("_", "/"))
    except ValueError as error:
        raise _malformed(f"{name!r} is not base64 ({error})", "base64 (RFC 4648 section 4 or 5)") from error


def _malformed(seen: str, expected: str) -> DropRejected:
    return DropRejected(
        RejectionCode.ENVELOPE_MALFORMED,
        seen=f"the manifest file is not a DSSE envelope: {seen}",
        expected=expected,
        remedy=f"{_RE_SIGN}.",
    )


def envelope_too_large(size: int) -> DropRejected:
    """The rejection of a manifest file of this size."""
    return DropRejected(
        RejectionCode.ENVELOPE_TOO_LARGE,
        seen=f"the manifest file has {size} bytes",
        expected=f"at most {MAX_ENVELOPE_BYTES}",
        remedy="List the devices in a targets file: `ota-sign sign --target` writes one.",
    )


def _unknown_key(keyid: str) -> DropRejected:
    return DropRejected(
        RejectionCode.KEY_UNKNOWN,
        seen=f"the manifest is signed by key {keyid[:64]!r}, which is not trusted",
        expected="a signature by one of the keys in the stack's trusted-keys parameters",
        remedy="Sign with a trusted key, or add this key's public half to the trusted keys.",
    )


def _revoked_key(keyid: str) -> DropRejected:
    return DropRejected(
        RejectionCode.KEY_REVOKED,
        seen=f"the manifest is signed by key {keyid}, which is no longer trusted",
        expected="a signature by one of the keys in the stack's trusted-keys parameters",
        remedy="Sign with a trusted key.",
    )


def _wrong_size(keyid: str, bits: int) -> DropRejected:
    return DropRejected(
        RejectionCode.KEY_TOO_SMALL if bits < MIN_KEY_BITS else RejectionCode.KEY_TOO_LARGE,
        seen=f"key {keyid} has {bits} bits",
        expected=f"RSA of {MIN_KEY_BITS} to {MAX_KEY_BITS} bits",
        remedy="Make a new key with `ota-sign keygen`, trust it, and sign again.",
    )


def _bad_signature(keyid: str) -> DropRejected:
    return DropRejected(
        RejectionCode.SIGNATURE_INVALID,
        seen=f"the signature by key {keyid} does not match the payload",
        expected="the exact payload that was signed",
        remedy=f"The manifest was changed after signing. {_RE_SIGN}.",
    )
