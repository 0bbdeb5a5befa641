"""Registering: eight drops at a time become releases, of one product, where they wait for each other, and of eight."""

from __future__ import annotations

import hashlib
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import rsa
from harness import Figure, medians, report
from lab import CONTEXT, PRODUCT, connect_database, load_handler
from ota_core.formats.envelope import payload_of
from ota_core.formats.release_id import release_id_of
from validate import make_envelope

_WORKERS = 8
_DROPS = 10
_numbers = itertools.count(1)
_key = rsa.generate_private_key(65537, 2048)
_PRODUCT = "INSERT INTO products (product) VALUES (:product) ON CONFLICT DO NOTHING"
_RELEASE = (
    "INSERT INTO releases (release_id, manifest_sha256, product, version, sequence, chip, changelog, envelope, keyid,"
    " image_key, image_version_id, image_size, image_sha256, image_signature, allow_downgrade, warnings, drop_members,"
    " expires_at, execution_arn, state) VALUES (:id, :id, :product, :version, :sequence, 'esp32s3', '', :envelope, 'k',"
    " 'k', 'v', 5, 'ab', '', false, '[]', '[]', :expires, 'e', 'registered')"
)


def main() -> None:
    handlers = [load_handler("register_metadata") for _ in range(_WORKERS)]
    databases = [connect_database() for _ in range(_WORKERS)]
    report(
        _measure(handlers, databases, "one product", [PRODUCT] * _WORKERS),
        _measure(handlers, databases, "8 products", [f"{PRODUCT}-{worker}" for worker in range(_WORKERS)]),
    )


def _measure(handlers, databases, which: str, products: list[str]) -> Figure:
    envelope = make_envelope(b"image", _key, product=products[0]).decode()
    prepared = [(database.prepare(_PRODUCT), database.prepare(_RELEASE)) for database in databases]
    events = {}
    outcomes = []

    def make_events() -> None:
        # In the order in which the drops should arrive, so that few are late.
        rounds = [[_event(product) for product in products] for _ in range(_DROPS)]
        events.update(enumerate(zip(*rounds, strict=True)))

    def register(worker: int) -> None:
        outcomes.extend(handlers[worker].lambda_handler(event, CONTEXT)["outcome"] for event in events[worker])

    def insert(worker: int) -> None:
        into_products, into_releases = prepared[worker]
        for _ in range(_DROPS):
            number = next(_numbers)
            databases[worker].run("BEGIN")
            into_products.run(product=products[worker])
            into_releases.run(
                id=f"{PRODUCT}-{number}",
                product=products[worker],
                version=f"0.0.{number}",
                sequence=number,
                envelope=envelope,
                expires=datetime.now(UTC) + timedelta(days=30),
            )
            databases[worker].run("COMMIT")

    with ThreadPoolExecutor(_WORKERS) as pool:

        def ours() -> None:
            list(pool.map(register, range(_WORKERS)))

        def floor() -> None:
            list(pool.map(insert, range(_WORKERS)))

        make_events()
        found = medians(ours, floor, operations=_WORKERS * _DROPS, clock=time.monotonic, before=make_events)
    return Figure(
        row="register",
        what=f"releases per second, 8 concurrent drops, {which}",
        ours=1 / found.ours,
        floor=1 / found.floor,
        ratio=found.ratio,
        goal="≤ 2 × floor",
        is_met=found.ratio <= 2,
        more={outcome: outcomes.count(outcome) for outcome in set(outcomes)},
    )


def _event(product: str) -> dict[str, object]:
    """What ValidateSignature passes on. The version is `auto`; a drop that is late for its product is refused."""
    envelope = make_envelope(b"image", _key, product=product, version="auto")
    payload = payload_of(envelope.decode())
    return {
        "execution": "e",
        "members": [{"key": "inbox/app.bin", "version_id": "v", "size": 5}],
        "release": {
            "release_id": release_id_of(payload),
            "manifest_sha256": hashlib.sha256(payload).hexdigest(),
            "envelope": envelope.decode(),
            "keyid": "k",
            "image": {"key": "releases/app.bin", "version_id": "v", "size": 5},
            "targets": None,
            "target_count": None,
            "warnings": [],
        },
    }


if __name__ == "__main__":
    main()
