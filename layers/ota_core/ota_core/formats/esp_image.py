"""The ESP32 application image: its structure, as the bootloader checks it.

Source: ESP-IDF v5.5 `bootloader_support/include/esp_app_format.h` (esp_image_header_t, esp_image_segment_header_t),
`bootloader_support/src/esp_image_format.c` (order of the checks) and `esp_app_format/include/esp_app_desc.h`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from ota_core.errors import DropRejected, RejectionCode

# esp_chip_id_t; the newest ones as esptool 5.6 knows them (`esptool/targets`, IMAGE_CHIP_ID)
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
    "esp32h21": 0x0019,
    "esp32h4": 0x001C,
    "esp32e22": 0x001F,
    "esp32s31": 0x0020,
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
_USE_APP_BIN = "Sign the application's own .bin: build/<project>.bin (ESP-IDF) or firmware.bin (PlatformIO)."
_USE_PLAIN = "Sign the image as it was before encryption."
_ESP8266 = ("an ESP8266 image", "Only ESP32 chips are supported. Sign a build for one of them.")

# Files that people take for an application image: offset, bytes there, what the file is, what to do.
_MISTAKEN: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\xea", *_ESP8266),
    (0, b"\x1f\x8b", "gzip-compressed", "Decompress it (gzip -d) and sign the .bin."),
    (0, b"PK\x03\x04", "a ZIP archive", "Unpack it and sign the application's .bin."),
    (0, b"UF2\n", "a UF2 file", _USE_APP_BIN),
    (0, b"\x7fELF", "an ELF file", _USE_APP_BIN),
    (0, b":10", "an Intel HEX file", _USE_APP_BIN),
    (0, b"\xaa\x50", "a partition table", _USE_APP_BIN),
    (8, b"littlefs", "a LittleFS data partition", _USE_APP_BIN),
    # esp_encrypted_img/include/esp_encrypted_img_priv.h, enc_img_header
    (0, b"\xcf\xb6\x88\x07", "encrypted (esp_encrypted_img)", _USE_PLAIN),
    (0, b"<", "a web page or XML", "The download of the firmware failed. Download it again and check its size."),
)
# A merged image holds the whole flash: the bootloader at 0, 0x1000 or 0x2000, the partition table at its default place
# (esp_flash_partitions.h), and the app.
_PARTITION_TABLE_OFFSET = 0x8000
_PARTITION_MAGIC = b"\xaa\x50"
_MERGED = "a merged factory image (bootloader, partition table and app)"
# Where an ESP8266 has its code and data; in an ESP32's header, pins and drive strengths stand in this place.
_ESP8266_ADDRESSES = (range(0x3FFE8000, 0x40000000), range(0x40100000, 0x40300000))
# In 4 KiB of random bytes, about 3,970 of the 4,095 pairs of neighbours are different; in code and data far fewer.
_SAMPLE_BYTES = 4096
_RANDOM_PAIRS = 3900


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
    if len(image) < _HEADER.size or image[0] != _MAGIC or _is_esp8266(image):
        what, remedy = _identify(image)
        raise DropRejected(
            RejectionCode.IMAGE_NOT_ESP,
            seen=f"the image is {what}",
            expected="an ESP32 application image, magic 0xE9",
            remedy=remedy,
        )
    (_, segment_count, _, _, _, _, chip_id, _, _, _, hash_appended) = _HEADER.unpack_from(image)
    if chip_id not in _CHIPS:
        raise DropRejected(
            RejectionCode.IMAGE_CHIP_UNKNOWN,
            seen=f"the image is for chip id 0x{chip_id:04X}, which this version does not know",
            expected=f"one of {', '.join(CHIP_IDS)}",
            remedy="If the chip is newer, upgrade ota-sign and the stack. Otherwise the file is damaged: build again.",
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


def _is_esp8266(image: bytes) -> bool:
    """Whether an image has the ESP8266's 8-byte header, which a segment follows at once."""
    load_address = int.from_bytes(image[8:12], "little")
    return image[0] == _MAGIC and any(load_address in addresses for addresses in _ESP8266_ADDRESSES)


def _is_merged(image: bytes) -> bool:
    return image[_PARTITION_TABLE_OFFSET : _PARTITION_TABLE_OFFSET + 2] == _PARTITION_MAGIC


def _looks_encrypted(image: bytes) -> bool:
    """Whether the bytes look random, as flash encryption leaves them: nearly all pairs of bytes are different."""
    sample = image[:_SAMPLE_BYTES]
    pairs = {sample[at : at + 2] for at in range(len(sample) - 1)}
    return len(sample) == _SAMPLE_BYTES and len(pairs) >= _RANDOM_PAIRS


def _identify(image: bytes) -> tuple[str, str]:
    """What a file is that is not an ESP32 image, and what to do about it."""
    if not image:
        return "empty", _REBUILD
    if _is_merged(image):
        return _MERGED, _USE_APP_BIN
    if _is_esp8266(image):
        return _ESP8266
    for offset, content, what, remedy in _MISTAKEN:
        if image[offset : offset + len(content)] == content:
            return what, remedy
    if _looks_encrypted(image):
        return "encrypted, as it seems", _USE_PLAIN
    return f"{len(image)} bytes that begin with 0x{image[0]:02X}", _USE_APP_BIN


def _describe(image: bytes, chip: str) -> EspImage:
    descriptor = image[_APP_DESCRIPTOR_OFFSET : _APP_DESCRIPTOR_OFFSET + _APP_DESCRIPTOR_BYTES]
    if len(descriptor) < _APP_DESCRIPTOR_BYTES or descriptor[:4] != _APP_DESCRIPTOR_MAGIC.to_bytes(4, "little"):
        what = _MERGED if _is_merged(image) else "a bootloader or other code without an app descriptor"
        raise DropRejected(
            RejectionCode.IMAGE_NOT_APP,
            seen=f"the image is {what}",
            expected="an application image",
            remedy=_USE_APP_BIN,
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
