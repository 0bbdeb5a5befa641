"""Validating: the first stage's checks of a drop with the largest image, once it is read from S3."""

from __future__ import annotations

import base64
import hashlib
import json
import resource
import struct
import time
import tracemalloc
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from harness import Figure, medians, report
from lab import IMAGE_BYTES
from ota_core.formats.envelope import PAYLOAD_TYPE, keyid_of, open_envelope, pre_authentication_encoding, seal
from ota_core.formats.manifest import parse_manifest
from ota_core.rules import admission

_OPERATIONS = 10


def main() -> None:
    key = rsa.generate_private_key(65537, 3072)
    public_key = key.public_key()
    image = make_image(IMAGE_BYTES)
    envelope = make_envelope(image, key)
    signature = key.sign(image, padding.PKCS1v15(), hashes.SHA256())
    now = datetime.now(UTC)

    def validate() -> None:
        opened = open_envelope(envelope, {keyid_of(public_key): public_key}.get)
        manifest = parse_manifest(opened.payload)
        admission.check_not_expired(manifest, now)
        assert admission.check_image(manifest, image, opened.public_key) == []

    def ours() -> None:
        for _ in range(_OPERATIONS):
            validate()

    def floor() -> None:
        for _ in range(_OPERATIONS):
            digest = hashlib.sha256(image).digest()
            public_key.verify(signature, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))

    found = medians(ours, floor, operations=_OPERATIONS)
    tracemalloc.start()
    validate()
    _, peak = tracemalloc.get_traced_memory()
    report(
        Figure(
            row="validate",
            what="ms of CPU for a 1.9 MB image",
            ours=found.ours * 1000,
            floor=found.floor * 1000,
            ratio=found.ratio,
            goal="≤ 5 × floor",
            is_met=found.ratio <= 5,
        ),
        Figure(
            row="validate",
            what="MiB of memory at its peak (floor: the image)",
            ours=(peak + len(image)) / 2**20,
            floor=len(image) / 2**20,
            goal="≤ image + 32 MiB",
            is_met=peak <= 32 * 2**20,
            more={"process_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024},
        ),
    )


def make_image(size: int) -> bytes:
    """An ESP32-S3 application of this size, filled with noise: see ESP-IDF's esp_app_format.h and esp_app_desc.h."""
    descriptor = struct.pack("<II8x32s32s16s16s32s32s80x", 0xABCD5432, 0, b"1.0.0", b"bench", b"", b"", b"v5.5", b"")
    header = struct.pack("<BBBBIB3sHBHH4sB", 0xE9, 1, 2, 0x10, 0x40375000, 0xEE, b"", 9, 0, 0, 99, b"", 1)
    room = size - 32 - 4 - len(header) - 8
    noise = hashlib.shake_256(b"bench").digest(room - len(descriptor))
    data = descriptor + noise
    checksum = 0xEF
    for byte in data:
        checksum ^= byte
    image = header + struct.pack("<II", 0x3C000020, len(data)) + data + bytes(3) + bytes([checksum])
    return image + hashlib.sha256(image).digest()


def make_envelope(image: bytes, key: rsa.RSAPrivateKey, **changes: object) -> bytes:
    """A signed manifest that releases the image to the whole fleet."""
    payload = json.dumps(
        {
            "schema": 1,
            "product": "bench",
            "version": "1.0.0",
            "sequence": time.time_ns() // 1000,
            "expires": f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%dT%H:%M:%SZ}",
            "changelog": "What is new.",
            "chip": "esp32s3",
            "firmware": {
                "size": len(image),
                "sha256": hashlib.sha256(image).hexdigest(),
                "signature": base64.b64encode(key.sign(image, padding.PKCS1v15(), hashes.SHA256())).decode(),
            },
            "targets": "all",
            **changes,
        }
    ).encode()
    signed = key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload), padding.PKCS1v15(), hashes.SHA256())
    return seal(payload, [(keyid_of(key.public_key()), signed)])


if __name__ == "__main__":
    main()
