"""Write the seeds of each fuzzer into its corpus: python fuzz/python/seeds.py.

The key that signs the envelopes is thrown away, so that nobody can ever sign another payload with it.
"""

import base64
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from ota_core.formats.manifest import parse_manifest
from ota_core.formats.notification import write_notification, write_withdrawal
from ota_core.formats.paging import write_cursor
from support.drops import key, manifest_fields, seal
from support.esp_images import CHIP_IDS, app_image
from targets import SIGNED_PAYLOAD, SIGNER

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
ROLLOUT = {
    "waves": [{"percent": 0.5, "soak": "90s"}, {"percent": 10, "soak": "24h"}, {"percent": 100}],
    "abort": {"failed_percent": 5, "silent_percent": 50.5, "min_devices": 20, "report_timeout": "2h"},
    "start_at": "2026-02-01T12:00:00+01:00",
    "window": {"from": "23:00", "to": "05:30", "timezone": "Europe/Berlin"},
}
MACS = ["AA:BB:CC:DD:EE:FF", "aa-bb-cc-dd-ee-0f", "aabbccddee1f"]
RELEASE = "0123456789abcdef0123456789abcdef"


def encoded(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def manifests() -> list[bytes]:
    image = app_image(size=336, segments=1)
    changes = [
        {},
        {"version": "auto", "allow_downgrade": True, "changelog": 'Größe \N{SNOWMAN}\n"\\'},
        {"version": "1.0.0-rc.1+build.5", "strict_app_version": True, "targets": MACS},
        {"targets": {"file_sha256": "0" * 64, "count": 3}, "rollout": ROLLOUT},
        {"targets": {"tags": ["beta", "site=berlin"]}, "rollout": {"waves": [{"percent": 100}]}},
    ]
    fixed = {"sequence": 1769860800, "expires": "2026-03-01T00:00:00Z"}
    return [encoded(manifest_fields(image, key(), **fixed, **change)) for change in changes]


def envelopes(payload: bytes) -> list[bytes]:
    plain = seal(payload, key())
    two = json.loads(seal(payload, key(), key("other")))
    url_safe = json.loads(plain)
    url_safe["payload"] = base64.urlsafe_b64encode(payload).decode()
    return [plain, encoded(two), encoded(url_safe | {"unknown": [None, 1.5e3, {}]}), encoded(two | {"signatures": []})]


def statuses() -> list[bytes]:
    said = [
        {"state": "downloading", "version": "1.4.0", "progress": 50, "reason": None, "running_version": "1.3.0"},
        {"state": "rolled_back", "progress": 100, "reason": "self_test_failed", "running_version": "1.3.0"},
        {"state": "installed", "version": "1.4.0"},
    ]
    messages = [encoded({"release_id": RELEASE} | status) for status in said]
    queued: dict[str, object] = {"topic": "/firmware_update/AA:BB:CC:DD:EE:FF/status", "received_at": 1769860800000}
    payload = base64.b64encode(messages[0]).decode()
    return [
        *messages,
        encoded(queued | {"payload": payload}),
        encoded({"topic": queued["topic"], "base64OriginalPayload": payload, "failures": []}),
    ]


def notifications(signed: list[bytes]) -> list[bytes]:
    written = []
    for number, payload in enumerate(signed):
        manifest = parse_manifest(payload)
        written.append(
            write_notification(
                release_id=RELEASE,
                manifest=manifest,
                version="1.4.1" if manifest.version == "auto" else manifest.version,
                envelope=seal(payload, *[key()] * (number % 4 + 1)),
                api_url="https://api.example",
                percent=12.5 if number else 100,
            )
        )
    return [*written, write_withdrawal(RELEASE)]


def responses() -> list[bytes]:
    whole = b'200\ncontent-length: 250\netag: "%s"\n\n' % (b"0" * 64) + b"x" * 250
    first = b"206\ncontent-length: 100\ncontent-range: bytes 0-99/250\n\n" + b"x" * 50 + b"\x01" + b"x" * 50
    second = b"206\ncontent-range: bytes 100-199/250\n\n" + b"x" * 100
    redirect = b"307\nlocation: https://other.example/image\n\n"
    busy = b"429\nretry-after: 120\n\n"
    update = b'200\ncontent-length: 13\n\n{"no": "one"}'
    exchanges = ([whole], [redirect, first], [busy, second], [update], [b"204\n\n"])
    return [b"\n---\n".join(answers) for answers in exchanges]


def states() -> list[bytes]:
    """The first byte selects one of the state's readers (fuzz/cpp/stored_state.cpp)."""
    version, digest = b"\x051.4.0", bytes(range(32))
    records = [
        (0).to_bytes() + b"\x01" + (7).to_bytes(8, "little") + version + b"\x01" + digest,
        (1).to_bytes() + b"\x01\x07release" + version + b"\x00" + bytes(8) + digest + b"\x01\x02\x00",
        (2).to_bytes() + b"\x01" + digest + bytes(4),
        (3).to_bytes() + b"\x01" + (7).to_bytes(8, "little") + bytes(4),
        (4).to_bytes() + b"\x01\x07release" + version + b"\x06failed\x0bflash_error",
    ]
    entry = (3).to_bytes(4, "little") + b"\xff" * 20 + (2).to_bytes(4, "little") + bytes(4)
    return [*records, b"\x06" + bytes(range(64)), b"\x07" + entry + b"\x02" + entry[1:]]


def images() -> list[bytes]:
    return [
        app_image(size=336, segments=1),
        app_image(size=352, segments=2, hash_appended=False, chip="esp32"),
        *(app_image(size=400, segments=3, chip=chip) for chip in CHIP_IDS),
        app_image(size=336, segments=1, descriptor=False),
    ]


def main() -> None:
    signed = manifests()
    SIGNER.write_text(key().public_pem)
    SIGNED_PAYLOAD.write_bytes(signed[0])
    seeds: dict[str, list[bytes]] = {
        "json": [*signed[1:4], b'[0,-1,1.5e-3,true,null,"\\ud83d\\ude00\\u0000",{"a":{},"b":[]}]'],
        "envelope": envelopes(signed[0]),
        "manifest": signed,
        "rollout": [encoded(ROLLOUT), encoded({"waves": [{"percent": 100}]})],
        "image": images(),
        "targets": [
            encoded(MACS),
            json.dumps({"devices": MACS}, indent=1).encode(),
            b'["AA:BB",\n"beta"]',
            b'["beta"]',
        ],
        "range": [b"bytes=0-99", b"bytes=500-", b"Bytes=-100", b"bytes= 0-0 , ,5-9,-1", b"items=0-1"],
        "preconditions": [
            b'"0123"\n"0123"\n',
            b'W/"0123", "x,y"\nSat, 31 Jan 2026 12:00:00 GMT',
            b"\n\nSaturday, 31-Jan-26 12:00:00 GMT\nSat Jan 31 12:00:00 2026\n",
            b"\n\n\nSat, 31 Jan 2026 12:00:00 GMT\n*",
        ],
        "status": statuses(),
        "cursor": [write_cursor("devices", "AA:BB:CC:DD:EE:FF").encode(), write_cursor("devices", "1.0.0", 7).encode()],
        "inbox": [b"a/app.bin", b"app-1.4.0+5.manifest.json", b"x/y z/app.targets.json", b"../a\\b//\xc3\xa9.bin"],
        "notification": notifications(signed),
        "http_response": responses(),
        "stored_state": states(),
        "time": [b"2026-01-31T12:00:00Z", b"2026-01-31t23:59:59.123456-11:30", b"0001-01-01T00:00:00+00:00"],
    }
    for name, inputs in seeds.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(inputs):
            (folder / f"seed-{number:02}").write_bytes(content)


if __name__ == "__main__":
    main()
