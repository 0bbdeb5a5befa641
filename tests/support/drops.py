"""Makes keys and drops, good ones and such as a signer with a trusted key could sign by mistake or malice.

Manifest and envelope are written down here a second time, from the contract and from DSSE's protocol.md, so that tests
do not ask the code under test what is right.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .esp_images import app_image

PAYLOAD_TYPE = "application/vnd.esp32-ota.manifest+json"
# Milliseconds, so that drops of one test run rise, and those of the next are higher still.
_sequences = itertools.count(time.time_ns() // 1_000_000)


@dataclass(frozen=True)
class Key:
    """A signing key and how the system knows it."""

    private: rsa.RSAPrivateKey

    @functools.cached_property
    def public(self) -> rsa.RSAPublicKey:
        return self.private.public_key()

    @functools.cached_property
    def keyid(self) -> str:
        spki = self.public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(spki).hexdigest()

    @property
    def public_pem(self) -> str:
        return self.public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()

    @property
    def private_pem(self) -> str:
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message, padding.PKCS1v15(), hashes.SHA256())


@functools.cache
def key(name: str = "release", bits: int = 2048) -> Key:
    """A key of this name; the same one throughout a test run."""
    return Key(rsa.generate_private_key(public_exponent=65537, key_size=bits))


@dataclass(frozen=True)
class Drop:
    """The contents of a drop's files."""

    image: bytes
    manifest: bytes
    targets: bytes | None = None

    @property
    def release_id(self) -> str:
        return hashlib.sha256(self._payload).hexdigest()[:32]

    @property
    def fields(self) -> dict[str, Any]:
        """What the manifest says."""
        fields: dict[str, Any] = json.loads(self._payload)
        return fields

    @property
    def _payload(self) -> bytes:
        return base64.b64decode(json.loads(self.manifest)["payload"])

    def members(self, stem: str) -> dict[str, bytes]:
        """File names and contents."""
        named = {f"{stem}.bin": self.image, f"{stem}.manifest.json": self.manifest}
        return named | ({} if self.targets is None else {f"{stem}.targets.json": self.targets})


def make_drop(
    *, signer: Key | None = None, image: bytes | None = None, targets_file: bytes | None = None, **changes: Any
) -> Drop:
    """A drop of an image, with fields of its manifest changed; `...` as a value leaves the field out.

    Args:
        signer: signs image and manifest.
        image: defaults to one of the version of the manifest.
        targets_file: content of the `.targets.json`, which the manifest then names.
        changes: fields of the manifest's payload.
    """
    signer = signer or key()
    if image is None:
        image = app_image(version=changes.get("version", "1.4.0"))
    if targets_file is not None and "targets" not in changes:
        listed = json.loads(targets_file)
        count = len(set(listed["devices"] if isinstance(listed, dict) else listed))
        changes["targets"] = {"file_sha256": hashlib.sha256(targets_file).hexdigest(), "count": count}
    fields = manifest_fields(image, signer, **changes)
    return Drop(image, seal(json.dumps(fields).encode(), signer), targets_file)


def manifest_fields(image: bytes, signer: Key, **changes: Any) -> dict[str, Any]:
    """The payload of a manifest, as a build server would have it."""
    fields = {
        "schema": 1,
        "product": "demo-sensor",
        "version": "1.4.0",
        "sequence": next(_sequences),
        "expires": (datetime.now(UTC) + timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "changelog": "What is new.",
        "chip": "esp32s3",
        "firmware": {
            "size": len(image),
            "sha256": hashlib.sha256(image).hexdigest(),
            "signature": base64.b64encode(signer.sign(image)).decode(),
        },
        "targets": "all",
    } | changes
    return {name: value for name, value in fields.items() if value is not ...}


def seal(payload: bytes, *signers: Key, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """A DSSE envelope."""
    return json.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [
                {
                    "keyid": signer.keyid,
                    "sig": base64.b64encode(signer.sign(pre_authentication_encoding(payload_type, payload))).decode(),
                }
                for signer in signers
            ],
        }
    ).encode()


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """PAE of DSSE: "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body."""
    return b" ".join(
        [b"DSSEv1", str(len(payload_type)).encode(), payload_type.encode(), str(len(payload)).encode(), payload]
    )


def target_list(count: int, *, first: int = 0) -> list[str]:
    """So many MACs, of locally administered addresses."""
    return [f"02:00:00:{n >> 16 & 255:02X}:{n >> 8 & 255:02X}:{n & 255:02X}" for n in range(first, first + count)]
