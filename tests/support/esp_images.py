"""Makes ESP32 application images, whole and in known ways broken.

The layout is written down here a second time, from esp_app_format.h and esp_app_desc.h of ESP-IDF, so that tests do
not ask the code under test what is right.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import random
import struct
from importlib.metadata import distribution
from pathlib import Path

CHIP_IDS = {
    "esp32": 0,
    "esp32s2": 2,
    "esp32c3": 5,
    "esp32s3": 9,
    "esp32c2": 12,
    "esp32c6": 13,
    "esp32h2": 16,
    "esp32p4": 18,
    "esp32c61": 20,
    "esp32c5": 23,
    "esp32h21": 25,
    "esp32h4": 28,
    "esp32e22": 31,
    "esp32s31": 32,
}
# Where flash data is mapped; elsewhere than at 0x3C000000 on these.
_DATA_ADDRESSES = {
    "esp32": 0x3F400000,
    "esp32s2": 0x3F000000,
    "esp32c5": 0x42000000,
    "esp32c6": 0x42000000,
    "esp32c61": 0x42000000,
    "esp32h2": 0x42000000,
    "esp32h21": 0x42000000,
    "esp32h4": 0x42000000,
    "esp32p4": 0x40000000,
    "esp32s31": 0x40000000,
}
HEADER_BYTES = 24
SEGMENT_HEADER_BYTES = 8
DESCRIPTOR_BYTES = 256
HASH_BYTES = 32


def app_image(
    *,
    chip: str | int = "esp32s3",
    size: int = 4096,
    version: str = "1.4.0",
    project_name: str = "demo-sensor",
    idf_version: str = "v5.5.1",
    segments: int = 3,
    hash_appended: bool = True,
    descriptor: bool = True,
    seed: int = 0,
) -> bytes:
    """An application image that a bootloader would start, filled with reproducible noise.

    Args:
        chip: its name, or any chip id.
        size: of the whole file, a multiple of 16.
        version: text of the app descriptor, as `project_name` and `idf_version` are.
        project_name: which product it is, to ota-sign.
        idf_version: of the build.
        segments: how many, 1 to 16.
        hash_appended: whether the SHA-256 of the image follows it.
        descriptor: False leaves the app descriptor's magic out.
        seed: another one gives other bytes.
    """
    trailer = HASH_BYTES if hash_appended else 0
    # Data ends 4 bytes before a 16-byte boundary; the last of those 4 is the checksum.
    room = size - trailer - 4 - HEADER_BYTES - segments * SEGMENT_HEADER_BYTES
    first = room - (segments - 1) * 16
    if size % 16 or first < DESCRIPTOR_BYTES:
        raise ValueError(f"no image of {size} bytes with {segments} segments can be made")
    noise = random.Random(seed)  # noqa: S311 - reproducible, not secret
    data = [_descriptor(version, project_name, idf_version, descriptor) + noise.randbytes(first - DESCRIPTOR_BYTES)]
    data += [noise.randbytes(16) for _ in range(segments - 1)]
    chip_id = CHIP_IDS[chip] if isinstance(chip, str) else chip
    image = struct.pack(
        "<BBBBIB3sHBHH4sB",
        0xE9,
        segments,
        2,
        0x10,
        0x40375000,
        0xEE,
        bytes(3),
        chip_id,
        0,
        0,
        99,
        bytes(4),
        hash_appended,
    )
    address = _DATA_ADDRESSES.get(str(chip), 0x3C000000) + 0x20
    for number, content in enumerate(data):
        image += struct.pack("<II", address + 0x10000 * number, len(content)) + content
    image += bytes(3) + bytes([checksum_of(data)])
    return image + (hashlib.sha256(image).digest() if hash_appended else b"")


def checksum_of(segments: list[bytes]) -> int:
    """XOR over all bytes, one by one, seeded with 0xEF."""
    return functools.reduce(operator.xor, b"".join(segments), 0xEF)


def with_byte(image: bytes, offset: int, value: int) -> bytes:
    """The image with one byte replaced."""
    changed = bytearray(image)
    changed[offset] = value
    return bytes(changed)


def with_hash(image: bytes) -> bytes:
    """The image with its appended SHA-256 made right again."""
    return image[:-HASH_BYTES] + hashlib.sha256(image[:-HASH_BYTES]).digest()


@functools.cache
def real_image() -> bytes:
    """An ESP32-S3 application that ESP-IDF built: the one inside the package mxdbg (Apache-2.0)."""
    return Path(str(distribution("mxdbg").locate_file("firmware/mxdbg.bin"))).read_bytes()


def _descriptor(version: str, project_name: str, idf_version: str, with_magic: bool) -> bytes:
    return struct.pack(
        "<II8x32s32s16s16s32s32s80x",
        0xABCD5432 if with_magic else 0,
        0,
        version.encode(),
        project_name.encode(),
        b"12:00:00",
        b"Jan  1 2026",
        idf_version.encode(),
        bytes(32),
    )
