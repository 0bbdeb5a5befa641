"""What the pipeline accepts, the device accepts, and both understand the same by it."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from local_cloud.simulated_device import build_ota_device
from ota_core.errors import DropRejected
from ota_core.formats.manifest import parse_manifest
from ota_core.formats.targets import AllDevices, ListedDevices

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
sys.path.insert(0, str(FUZZ / "python"))
from mutations import mutate_json  # noqa: E402

MAC = "AA:BB:CC:DD:EE:FF"  # read_manifests.cpp's
MAX_SIGNATURE_BYTES = 512  # of an RSA key of 4096 bits, the largest that may sign


@pytest.fixture(scope="module")
def device_reads(tmp_path_factory):
    """What the device understands of each payload, as a line of text."""
    program = build_ota_device(tmp_path_factory.mktemp("host") / "build.log", "read_manifests")

    def read(payloads):
        lines = "".join(f"{payload.hex()}\n" for payload in payloads)
        return subprocess.run([program], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()

    return read


def understood(manifest):
    """The line that the device should write."""
    match manifest.targets:
        case AllDevices():
            target = 0
        case ListedDevices(macs):
            target = 1 if MAC in macs else 2
        case _:
            target = 3
    return (
        f"none {manifest.product} {manifest.version} {manifest.chip} {manifest.sequence}"
        f" {int(manifest.expires.replace(microsecond=0).timestamp())} {manifest.image_size} {manifest.image_sha256}"
        f" {manifest.image_signature.hex()} {manifest.allow_downgrade:d} {manifest.strict_app_version:d} {target}"
    )


def test_device_understands_by_a_manifest_what_the_pipeline_does(device_reads, proving, proof):
    corpus = [path.read_bytes() for path in sorted((FUZZ / "corpus" / "manifest").iterdir())]
    random = Random(8)  # noqa: S311 - reproducible, not secret
    mutated = (mutate_json(random.choice(corpus), random) for _ in range(1_000_000 if proving else 10_000))
    accepted = {}
    for payload in [*corpus, *mutated]:
        try:
            manifest = parse_manifest(payload)
        except DropRejected:
            continue
        # Other signatures are refused with the image.
        if 0 < len(manifest.image_signature) <= MAX_SIGNATURE_BYTES:
            accepted[payload] = understood(manifest)
    assert len(accepted) > 500
    read = device_reads(accepted)
    differences = [
        (payload, expected, line)
        for (payload, expected), line in zip(accepted.items(), read, strict=True)
        if line != expected
    ]
    assert differences[:3] == []
    proof("inputs", "manifests that pipeline and device read alike", tried=len(accepted), withstood=len(read))
