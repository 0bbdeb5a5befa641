"""What holds for every input of the parsers of `ota_core` that read untrusted data.

One function per parser. It takes any bytes, returns whether the parser accepted them, and lets only documented errors
happen: any other exception, an AssertionError or a hang is a finding. What is accepted must stay the same when it is
written and read again, and a second reader, if there is one, must accept it with the same meaning.
"""

import base64
import contextlib
import functools
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from esptool.bin_image import LoadFirmwareImage
from ota_core.errors import DropRejected
from ota_core.formats import (
    byte_range,
    device_status,
    envelope,
    esp_image,
    manifest,
    paging,
    preconditions,
    rfc3339,
    rollout_plan,
    strict_json,
    targets,
)
from ota_core.rules import inbox, rollout
from securesystemslib.dsse import Envelope
from werkzeug.http import parse_date, parse_etags, parse_range_header

HERE = Path(__file__).parent
# Reasons go into alerts, logs and states of an execution, all of which have size limits.
MAX_MESSAGE_CHARS = 2000
# The public key, and the one payload that was ever signed with it: see seeds.py.
SIGNER = HERE / "signer.pub.pem"
SIGNED_PAYLOAD = HERE / "signed_payload.json"

_SCHEMA = json.loads((HERE / "manifest.schema.json").read_text())
_MANIFEST = jsonschema_rs.validator_for(_SCHEMA)
_ROLLOUT = jsonschema_rs.validator_for(_SCHEMA["$defs"]["rollout"] | {"$defs": _SCHEMA["$defs"]})
_NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
_MAC = re.compile(r"([0-9A-F]{2}:){5}[0-9A-F]{2}")


def read_json(raw: bytes) -> bool:
    """`strict_json.loads` reads what orjson reads, or less."""
    try:
        value = strict_json.loads(raw)
    except ValueError as error:
        _check_message(str(error))
        return False
    assert strict_json.loads(json.dumps(value, ensure_ascii=False).encode()) == value
    with contextlib.suppress(_BeyondOrjson):
        assert _as_orjson(value) == orjson.loads(raw)
    return True


def read_envelope(raw: bytes) -> bool:
    """`envelope.parse` and `open_envelope` read what securesystemslib reads, and open only what was signed."""
    try:
        payload, signatures = envelope.parse(raw)
    except DropRejected as error:
        _check_message(error.message)
        return False
    assert envelope.parse(envelope.seal(payload, signatures)) == (payload, signatures)
    keyids = [keyid for keyid, _ in signatures]
    # securesystemslib requires signatures by different keys; ours needs one good one.
    if len(set(keyids)) == len(keyids) and all(keyids):
        read = Envelope.from_dict(json.loads(raw))
        assert read.payload == payload
        assert [(keyid, bytes.fromhex(read.signatures[keyid].signature)) for keyid in keyids] == signatures
    public_key, keyid, signed = _signer()
    try:
        opened = envelope.open_envelope(raw, {keyid: public_key}.get)
    except DropRejected as error:
        _check_message(error.message)
    else:
        assert (opened.payload, opened.keyid) == (signed, keyid)
    return True


def read_manifest(payload: bytes) -> bool:
    """`parse_manifest` accepts only what its schema, written independently, accepts."""
    try:
        read = manifest.parse_manifest(payload)
    except DropRejected as error:
        _check_message(error.message)
        return False
    _MANIFEST.validate(orjson.loads(payload))
    written = manifest.write_manifest(read)
    again = manifest.parse_manifest(written)
    # Times are written in whole seconds.
    assert manifest.write_manifest(again) == written
    assert again.expires == read.expires.replace(microsecond=0)
    return True


def read_rollout(raw: bytes) -> bool:
    """`parse_rollout`, and that a rollout ends, whatever its plan."""
    try:
        plan = rollout_plan.parse_rollout(strict_json.loads(raw))
    except DropRejected as error:
        _check_message(error.message)
        return False
    except ValueError:
        return False
    _ROLLOUT.validate(orjson.loads(raw))
    written = rollout_plan.write_rollout(plan)
    assert rollout_plan.write_rollout(rollout_plan.parse_rollout(written)) == written
    _roll_out(plan)
    return True


def inspect_image(image: bytes) -> bool:
    """`esp_image.inspect` accepts only what esptool finds valid. Each image is also tried with sums that are right."""
    accepted = False
    for candidate in (image, _with_right_sums(image)):
        try:
            found = esp_image.inspect(candidate)
        except DropRejected as error:
            _check_message(error.message)
            continue
        accepted = True
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            read = LoadFirmwareImage(found.chip, candidate)
        assert read.checksum == read.calculate_checksum()
        assert not read.append_digest or read.stored_digest == read.calc_digest
        assert read.chip_id == esp_image.CHIP_IDS[found.chip]
        assert len(found.app_version) <= 32
    return accepted


def read_targets(raw: bytes) -> bool:
    """`parse_targets_document` and `parse_target_tags`: no device that the list does not name, and none missing."""
    _read_tags(raw)
    try:
        macs = targets.parse_targets_document(raw)
    except DropRejected as error:
        _check_message(error.message)
        lines = [int(line) for line in re.findall(r"\(line (\d+)\)", error.message)]
        assert lines == sorted(lines)
        assert all(1 <= line <= raw.count(b"\n") + 1 for line in lines)
        return False
    assert all(_MAC.fullmatch(mac) for mac in macs)
    assert macs == sorted(set(macs))
    document = orjson.loads(raw)
    listed = document["devices"] if isinstance(document, dict) else document
    assert {bytes.fromhex(mac.replace(":", "")) for mac in macs} == {
        bytes.fromhex(item.replace(":", "").replace("-", "")) for item in listed
    }
    assert targets.parse_targets_document(json.dumps(macs).encode()) == macs
    return True


def read_range(raw: bytes) -> bool:
    """`requested_range` stays inside the image, and selects the same part as werkzeug."""
    header = raw.decode(errors="replace")
    understood = False
    for size in (1, 1000, 2**31 - 1):
        part = byte_range.requested_range(header, size)
        understood = understood or part is not None
        if not isinstance(part, byte_range.ByteRange):
            continue
        assert 0 <= part.first <= part.last < size
        assert part.content_range(size) == f"bytes {part.first}-{part.first + part.size - 1}/{size}"
        # Werkzeug accepts one range, and no empty list elements.
        if "," not in header:
            read = parse_range_header(header.strip(" \t"))
            assert read is not None
            suffix = -read.ranges[0][0]
            # A suffix longer than the image means the whole image (RFC 9110 section 14.1.2), but not to werkzeug.
            assert (part.first, part.last + 1) == ((0, size) if suffix > size else read.range_for_length(size))
    return understood


def read_preconditions(raw: bytes) -> bool:
    """`evaluate` and `range_applies`, with one header per line. No match that werkzeug does not see."""
    fields = [line or None for line in raw.decode(errors="replace").split("\n")[:5]]
    fields += [None] * (5 - len(fields))
    names = ("if_none_match", "if_range", "if_modified_since", "if_unmodified_since", "if_match")
    conditions = preconditions.Conditions(**dict(zip(names, fields, strict=True)))
    image = preconditions.Validators('"0123"', _NOW)
    verdict = preconditions.evaluate(conditions, image)
    applies = preconditions.range_applies(conditions, image, _NOW + timedelta(hours=1))
    if verdict is preconditions.Verdict.NOT_MODIFIED:
        if conditions.if_none_match is not None:
            assert parse_etags(conditions.if_none_match.strip(" \t")).contains_weak("0123")
        else:
            date = parse_date(conditions.if_modified_since)
            assert date is not None
            assert date >= _NOW
    if applies and conditions.if_range is not None:
        text = conditions.if_range.strip(" \t")
        assert text == image.etag or parse_date(text) == _NOW
    return verdict is not preconditions.Verdict.PROCEED or (applies and conditions.if_range is not None)


def read_status(raw: bytes) -> bool:
    """`parse_status` and `read_queued`: what is accepted fits the database's columns."""
    topic = "/firmware_update/AA:BB:CC:DD:EE:FF/status"
    queued = json.dumps({"topic": topic, "payload": base64.b64encode(raw).decode(), "received_at": 1769860800000})
    outcomes = [
        _status_of(device_status.parse_status, topic, raw, _NOW),
        _status_of(device_status.read_queued, queued, _NOW.timestamp() * 1000),
    ]
    assert outcomes[0] == outcomes[1]
    forged = _status_of(device_status.read_queued, raw.decode(errors="replace"), _NOW.timestamp() * 1000)
    if outcomes[0] is not None:
        status = {"release_id": outcomes[0].release_id, "state": outcomes[0].state, "progress": outcomes[0].progress}
        status |= {"reason": outcomes[0].reason, "running_version": outcomes[0].running_version}
        again = device_status.parse_status(topic, json.dumps(status, ensure_ascii=False).encode(), _NOW)
        assert again == outcomes[0]
    return any((outcomes[0], forged))


def read_cursor(raw: bytes) -> bool:
    """`read_cursor` returns only lists of what a cursor can hold."""
    try:
        position = paging.read_cursor(raw.decode(errors="replace"), "devices")
    except ValueError as error:
        _check_message(str(error))
        return False
    written = paging.write_cursor("devices", *position)
    # Escapes can make what we write longer than what was read.
    if len(written) <= len(raw):
        assert paging.read_cursor(written, "devices") == position
    return True


def locate_drop(raw: bytes) -> bool:
    """`inbox.locate`, and that every object can be moved away, even one with a misleading key."""
    key = inbox.INBOX + raw.decode(errors="replace")
    for moved in (inbox.moved_key(key, inbox.REJECTED), inbox.moved_key(key, inbox.ARCHIVE), inbox.reason_key(key)):
        assert moved.isascii()
        assert moved.isprintable()
        assert len(moved) <= 1024
        assert not {"", ".", ".."} & set(moved.split("/"))
    try:
        drop = inbox.locate(key)
    except DropRejected as error:
        _check_message(error.message)
        return False
    assert [member for member in inbox.Member if drop.key(member) == key]
    assert all(inbox.locate(drop.key(member)) == drop for member in inbox.Member)
    return True


def read_time(raw: bytes) -> bool:
    """`parse_time` reads a time as the same moment as a second reader."""
    text = raw.decode(errors="replace")
    try:
        moment = rfc3339.parse_time(text)
    except ValueError:
        return False
    assert moment.tzinfo is UTC
    assert rfc3339.parse_time(rfc3339.format_time(moment)) == moment.replace(microsecond=0)
    date, clock, offset = text[:10], text[11:19], text.upper().removesuffix("Z")[19:].lstrip(".0123456789")
    local = datetime.strptime(f"{date} {clock}", "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[4:6])) if offset else timedelta(0)
    assert local - shift * (-1 if offset[:1] == "-" else 1) == moment.replace(microsecond=0)
    return True


TARGETS: dict[str, Callable[[bytes], bool]] = {
    "json": read_json,
    "envelope": read_envelope,
    "manifest": read_manifest,
    "rollout": read_rollout,
    "image": inspect_image,
    "targets": read_targets,
    "range": read_range,
    "preconditions": read_preconditions,
    "status": read_status,
    "cursor": read_cursor,
    "inbox": locate_drop,
    "time": read_time,
}
# Those that read JSON.
JSON_TARGETS = {"json", "envelope", "manifest", "rollout", "targets", "status"}


class _BeyondOrjson(Exception):  # noqa: N818 - not an error
    """The value does not fit orjson: too deep, or an integer beyond a double's range."""


def _check_message(message: str) -> None:
    assert len(message) <= MAX_MESSAGE_CHARS, f"a message of {len(message)} characters: {message[:200]}"


def _as_orjson(value: Any, depth: int = 0) -> Any:
    """The value as orjson reads it: integers beyond 64 bits as doubles."""
    if depth > 200:
        raise _BeyondOrjson
    if isinstance(value, dict):
        return {name: _as_orjson(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_orjson(item, depth + 1) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:
            raise _BeyondOrjson from None
    return value


@functools.cache
def _signer() -> tuple[rsa.RSAPublicKey, str, bytes]:
    public_key = load_pem_public_key(SIGNER.read_bytes())
    assert isinstance(public_key, rsa.RSAPublicKey)
    return public_key, envelope.keyid_of(public_key), SIGNED_PAYLOAD.read_bytes()


def _roll_out(plan: rollout_plan.Rollout) -> None:
    """Follow a plan in which every device installs at once: each wave goes out once, and it completes."""
    progress = rollout.Progress(waves_published=0, published_at=None)
    now, percent = _NOW, 0.0
    # A wave is looked at five times, may wait for its window, and then goes out.
    for _ in range(8 * len(plan.waves) + 8):
        step = rollout.next_step(plan, progress, now)
        json.dumps(rollout.describe_step(step))
        if isinstance(step, rollout.WaitUntil):
            assert step.moment > now
            now = step.moment
        elif isinstance(step, rollout.PublishWave):
            assert step.number == progress.waves_published + 1
            assert step.earlier_percent == percent < step.percent
            percent = step.percent
            progress = rollout.Progress(waves_published=step.number, published_at=now)
        else:
            assert isinstance(step, rollout.Complete)
            assert percent == 100
            return
    raise AssertionError("the rollout does not end")


def _with_right_sums(image: bytes) -> bytes:
    """The image with the correct checksum and appended hash for its segments, as far as it has any."""
    changed = bytearray(image)
    if len(image) < 24:
        return image
    offset, checksum = 24, 0xEF
    for _ in range(image[1]):
        length = int.from_bytes(image[offset + 4 : offset + 8], "little")
        for byte in image[offset + 8 : offset + 8 + length]:
            checksum ^= byte
        offset += 8 + length
        if offset > len(image):
            return image
    end = offset + 16 - offset % 16
    changed[offset:] = changed[offset:end].ljust(end - offset, b"\0")
    changed[end - 1] = checksum
    return bytes(changed) + (sha256(changed).digest() if image[23] else b"")


def _read_tags(raw: bytes) -> None:
    try:
        tags = targets.parse_target_tags(strict_json.loads(raw)).tags
    except DropRejected as error:
        _check_message(error.message)
    except ValueError:
        pass
    else:
        assert set(tags) == set(orjson.loads(raw))
        assert targets.parse_target_tags(list(tags)).tags == tags


def _status_of(read: Callable[..., device_status.DeviceStatus], *arguments: Any) -> device_status.DeviceStatus | None:
    try:
        status = read(*arguments)
    except device_status.StatusRefused as error:
        _check_message(error.message)
        return None
    assert _MAC.fullmatch(status.mac)
    assert re.fullmatch(r"[0-9a-f]{32}", status.release_id)
    assert status.progress is None or 0 <= status.progress <= 100
    for text in (status.reason, status.running_version):
        assert text is None or 0 < len(text) <= 200
        assert text is None or "\0" not in text
    # What PostgreSQL's timestamptz holds.
    assert datetime(1, 1, 1, tzinfo=UTC) <= status.received_at
    return status
