import gzip
import random
import struct

import pytest
from esptool import cmds as esptool_commands
from esptool import targets as esptool_targets
from hypothesis import given
from hypothesis import strategies as st
from ota_core.errors import DropRejected, RejectionCode
from ota_core.formats import esp_image
from ota_core.formats.esp_image import EspImage, inspect
from support.esp_images import CHIP_IDS, HEADER_BYTES, app_image, checksum_of, real_image, with_byte, with_hash
from support.rejections import rejected

IMAGE = app_image()
# Offsets in IMAGE: three segments, the last two of 16 bytes.
SEGMENT_COUNT = 1
CHIP_ID = 12
HASH_FLAG = 23
FIRST_LENGTH = HEADER_BYTES + 4
CHECKSUM = len(IMAGE) - 33


@pytest.fixture
def esptool(capsys):
    """What `esptool image-info` prints of an image, and whether it finds it sound."""

    def image_info(image):
        capsys.readouterr()
        try:
            esptool_commands.image_info(image)
        except Exception as error:  # noqa: BLE001 - whatever it raises, it does not find the image sound
            return False, str(error)
        said = capsys.readouterr().out
        return "(invalid" not in said, said

    return image_info


@pytest.mark.parametrize(
    "options",
    [
        *({"chip": chip} for chip in CHIP_IDS),
        {"segments": 1},
        {"segments": 16},
        {"hash_appended": False},
        {"size": 300_000, "version": "1.4.0-rc.1+build.77", "project_name": "x", "idf_version": "v6.0-dev"},
    ],
    ids=str,
)
def test_generated_image_is_sound_and_reads_as_esptool_reads_it(options, esptool):
    image = app_image(**options)
    sound, said = esptool(image)
    assert sound, said
    described = inspect(image)
    assert described.chip == options.get("chip", "esp32s3")
    assert f"App version: {described.app_version}\n" in said
    assert f"Project name: {described.project_name}\n" in said
    assert f"ESP-IDF: {described.idf_version}\n" in said
    assert f"({described.chip.upper().replace('ESP32', 'ESP32-').rstrip('-')})" in said


def test_real_image_reads_as_esptool_reads_it(esptool):
    sound, said = esptool(real_image())
    assert sound
    assert "(ESP32-S3)" in said
    assert inspect(real_image()) == EspImage("esp32s3", "edeaadb-dirty", "mxdbg", "v5.3.5-1172-gd41a3436b16")
    assert all(
        text in said
        for text in ("App version: edeaadb-dirty", "Project name: mxdbg", "ESP-IDF: v5.3.5-1172-gd41a3436b16")
    )


def test_chips_are_those_of_the_contract():
    assert esp_image.CHIP_IDS == CHIP_IDS


MUTATIONS = {
    "wrong magic": (with_byte(IMAGE, 0, 0xE8), RejectionCode.IMAGE_NOT_ESP, "begin with 0xE8"),
    "empty": (b"", RejectionCode.IMAGE_NOT_ESP, "is empty"),
    "shorter than a header": (IMAGE[:23], RejectionCode.IMAGE_NOT_ESP, "23 bytes that begin with 0xE9"),
    "unknown chip": (with_hash(with_byte(IMAGE, CHIP_ID, 3)), RejectionCode.IMAGE_CHIP_UNKNOWN, "chip id 0x0003"),
    "chip id beyond a byte": (
        with_hash(with_byte(IMAGE, CHIP_ID + 1, 1)),
        RejectionCode.IMAGE_CHIP_UNKNOWN,
        "chip id 0x0109",
    ),
    "17 segments": (with_hash(with_byte(IMAGE, SEGMENT_COUNT, 17)), RejectionCode.IMAGE_NOT_ESP, "17 segments"),
    "no segment": (with_hash(with_byte(IMAGE, SEGMENT_COUNT, 0)), RejectionCode.IMAGE_NOT_ESP, "0 segments"),
    "segment of odd length": (
        with_hash(with_byte(IMAGE, FIRST_LENGTH, IMAGE[FIRST_LENGTH] | 1)),
        RejectionCode.IMAGE_NOT_ESP,
        "a multiple of 4 bytes",
    ),
    "segment that ends between words": (
        with_hash(with_byte(IMAGE, FIRST_LENGTH, IMAGE[FIRST_LENGTH] | 2)),
        RejectionCode.IMAGE_NOT_ESP,
        "a multiple of 4 bytes",
    ),
    "segment longer than the file": (
        with_hash(with_byte(IMAGE, FIRST_LENGTH + 3, 0xFF)),
        RejectionCode.IMAGE_TRUNCATED,
        "the end of segment 1",
    ),
    "cut in a segment": (IMAGE[:2000], RejectionCode.IMAGE_TRUNCATED, "ends after 2000 bytes"),
    "cut in a segment's header": (IMAGE[: HEADER_BYTES + 5], RejectionCode.IMAGE_TRUNCATED, "the header of segment 1"),
    "cut before the checksum": (IMAGE[:CHECKSUM], RejectionCode.IMAGE_TRUNCATED, "with checksum and hash"),
    "cut in the hash": (IMAGE[:-1], RejectionCode.IMAGE_TRUNCATED, "4096 with checksum and hash"),
    "wrong checksum": (
        with_hash(with_byte(IMAGE, CHECKSUM, IMAGE[CHECKSUM] ^ 1)),
        RejectionCode.IMAGE_CHECKSUM_WRONG,
        f"expected 0x{IMAGE[CHECKSUM]:02X}",
    ),
    "wrong byte of a segment": (
        with_hash(with_byte(IMAGE, 1000, IMAGE[1000] ^ 0x80)),
        RejectionCode.IMAGE_CHECKSUM_WRONG,
        "checksum byte",
    ),
    "wrong hash": (
        with_byte(IMAGE, len(IMAGE) - 1, IMAGE[-1] ^ 1),
        RejectionCode.IMAGE_APPENDED_HASH_WRONG,
        IMAGE[-32:].hex(),
    ),
    "changed byte that the checksum does not cover": (
        with_byte(IMAGE, 4, IMAGE[4] ^ 1),
        RejectionCode.IMAGE_APPENDED_HASH_WRONG,
        "appended SHA-256",
    ),
    "hash flag that is neither 0 nor 1": (
        with_hash(with_byte(IMAGE, HASH_FLAG, 2)),
        RejectionCode.IMAGE_NOT_ESP,
        "hash_appended is 2; expected 0 or 1",
    ),
    "no app descriptor": (app_image(descriptor=False), RejectionCode.IMAGE_NOT_APP, "without an app descriptor"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_broken_image_is_rejected_with_its_own_code(mutation):
    image, code, message = MUTATIONS[mutation]
    with rejected(code, message):
        inspect(image)


def merged(bootloader_at, chip="esp32"):
    """A factory image: bootloader, partition table, app, and erased flash between them."""
    image = bytearray(b"\xff" * 0x10000)
    bootloader = app_image(chip=chip, descriptor=False)
    image[bootloader_at : bootloader_at + len(bootloader)] = bootloader
    image[0x8000:0x8002] = b"\xaa\x50"
    return bytes(image) + app_image(chip=chip)


def esp8266_image():
    """As esptool's `ESP8266ROMFirmwareImage` writes it: a header of 8 bytes, then the first segment's."""
    return struct.pack("<BBBBIII", 0xE9, 1, 0, 0, 0x40100000, 0x40100000, 16) + bytes(28)


MISTAKEN = {
    "ESP8266": (esp8266_image(), "an ESP8266 image", "Only ESP32 chips"),
    "ESP8266, version 2": (b"\xea\x04\x00\x00" + bytes(60), "an ESP8266 image", "Only ESP32 chips"),
    "gzip": (gzip.compress(IMAGE), "gzip-compressed", "gzip -d"),
    "ZIP": (b"PK\x03\x04" + bytes(60), "a ZIP archive", "Unpack it"),
    "UF2": (b"UF2\nWQ]\x9e" + bytes(504), "a UF2 file", "firmware.bin"),
    "ELF": (b"\x7fELF" + bytes(60), "an ELF file", "firmware.bin"),
    "Intel HEX": (b":10010000214601360121470136007EFE09D2190140\n" * 2, "an Intel HEX file", "firmware.bin"),
    "partition table": (b"\xaa\x50\x01\x02" + bytes(60), "a partition table", "firmware.bin"),
    "LittleFS": (bytes(8) + b"littlefs" + bytes(60), "a LittleFS data partition", "firmware.bin"),
    "pre-encrypted": (b"\xcf\xb6\x88\x07" + bytes(508), "encrypted (esp_encrypted_img)", "before encryption"),
    "encrypted": (b"\x01" + random.Random(1).randbytes(8000), "encrypted, as it seems", "before encryption"),  # noqa: S311
    "web page": (b"<!DOCTYPE html><html>404</html>", "a web page", "Download it again"),
    "merged for an ESP32": (merged(0x1000), "a merged factory image", "build/<project>.bin"),
    "merged for an ESP32-P4": (merged(0x2000, "esp32p4"), "a merged factory image", "build/<project>.bin"),
}


@pytest.mark.parametrize("mistaken", MISTAKEN)
def test_file_that_is_something_else_is_called_what_it_is(mistaken):
    image, what, remedy = MISTAKEN[mistaken]
    with rejected(RejectionCode.IMAGE_NOT_ESP, what) as caught:
        inspect(image)
    assert remedy in caught.value.message
    assert "Build the firmware again" not in caught.value.message


@pytest.mark.parametrize("chip", ["esp32s3", "esp32c3", "esp32c6"])
def test_merged_image_of_a_chip_whose_bootloader_is_at_zero_is_not_taken_for_an_application(chip):
    with rejected(RejectionCode.IMAGE_NOT_APP, "a merged factory image") as caught:
        inspect(merged(0, chip))
    assert "build/<project>.bin" in caught.value.message


def test_every_chip_that_esptool_knows_is_known():
    theirs = {chip.IMAGE_CHIP_ID: name for name, chip in esptool_targets.CHIP_DEFS.items() if name != "esp8266"}
    assert theirs == {chip_id: name for name, chip_id in esp_image.CHIP_IDS.items()}


def test_real_images_do_not_look_encrypted():
    assert not any(esp_image._looks_encrypted(real_image()[at : at + 4096]) for at in range(0, len(real_image()), 4096))


# esptool looks at structure alone: some unknown chips, and images that hold no application, are fine with it.
@pytest.mark.parametrize(
    "mutation", sorted(set(MUTATIONS) - {"no app descriptor", "no segment", "chip id beyond a byte"})
)
def test_broken_image_is_broken_to_esptool_too(mutation, esptool):
    sound, said = esptool(MUTATIONS[mutation][0])
    assert not sound, said


def test_image_may_be_followed_by_a_signature_block():
    assert inspect(IMAGE + bytes(4096)) == inspect(IMAGE)


def test_image_too_short_for_an_app_descriptor_is_rejected():
    header = bytearray(IMAGE[:HEADER_BYTES])
    header[SEGMENT_COUNT], header[HASH_FLAG] = 1, 0
    content = IMAGE[32:64]
    image = bytes(header) + (0).to_bytes(4, "little") + (32).to_bytes(4, "little") + content
    image += bytes(15 - len(image) % 16) + bytes([checksum_of([content])])
    with rejected(RejectionCode.IMAGE_NOT_APP):
        inspect(image)


@given(st.integers(0, len(IMAGE) - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(at, change):
    with pytest.raises(DropRejected):
        inspect(with_byte(IMAGE, at, IMAGE[at] ^ change))


@given(st.integers(0, len(IMAGE) - 1))
def test_image_cut_anywhere_is_rejected(length):
    with pytest.raises(DropRejected):
        inspect(IMAGE[:length])


@given(st.binary() | st.binary().map(lambda rest: IMAGE[:HEADER_BYTES] + rest))
def test_any_bytes_are_rejected_without_another_error(image):
    with pytest.raises(DropRejected):
        inspect(image)


@given(st.binary(max_size=400))
def test_folded_xor_is_that_of_a_loop_over_the_bytes(content):
    assert esp_image._xor_of_bytes(memoryview(content)) == checksum_of([content]) ^ 0xEF


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_in_the_descriptor_is_read(version, project_name):
    version, project_name = (
        text.encode(errors="ignore")[:31].decode(errors="ignore") for text in (version, project_name)
    )
    described = inspect(app_image(version=version, project_name=project_name))
    assert described.app_version == version.split("\0")[0]
    assert described.project_name == project_name.split("\0")[0]


def test_descriptor_field_without_a_terminator_or_with_broken_utf8_is_read():
    start = 32 + 16
    image = with_hash_and_checksum(IMAGE[:start] + b"\xff" + b"9" * 31 + IMAGE[start + 32 :])
    assert inspect(image).app_version == "\ufffd" + "9" * 31


def with_hash_and_checksum(image):
    changed = [image[32:][: int.from_bytes(image[28:32], "little")]]
    first_end = 32 + len(changed[0])
    changed += [image[first_end + 8 :][:16], image[first_end + 32 :][:16]]
    return with_hash(with_byte(image, CHECKSUM, checksum_of(changed)))


def test_image_of_the_slots_size_fits_and_one_byte_more_does_not():
    esp_image.check_fits_slot(0x1E0000, esp_image.DEFAULT_SLOT_BYTES)
    with rejected(RejectionCode.IMAGE_TOO_LARGE, "1966081 bytes; expected at most 1966080 (0x1E0000)"):
        esp_image.check_fits_slot(0x1E0001, esp_image.DEFAULT_SLOT_BYTES)
