"""What is built in is pinned by hash and listed, and no secret lies in the repository."""

import json
import re
import subprocess
import tomllib

import pytest
from support.secrets import forms_in


@pytest.fixture(scope="module")
def committed(project):
    """Paths and contents of the repository's files."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=project,
        capture_output=True,
        check=True,
    )
    paths = [project / name for name in listed.stdout.decode().split("\0") if name]
    return {path.relative_to(project): path.read_bytes() for path in paths if path.is_file()}


def requirements(lock):
    """Names, versions and hashes of a lock file."""
    found = {}
    for entry in lock.replace("\\\n", " ").splitlines():
        if entry.strip() and not entry.lstrip().startswith("#"):
            pinned = re.match(r"([A-Za-z0-9._-]+)(?:\[[a-z0-9,-]+\])?==(\S+)", entry)
            assert pinned, f"not pinned: {entry[:80]}"
            found.setdefault(pinned[1], []).append((pinned[2], re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)))
    return found


def test_no_secret_is_in_the_repository(committed):
    suspects = {str(path): forms_in(content.decode(errors="replace")) for path, content in committed.items()}
    assert {path: kinds for path, kinds in suspects.items() if kinds} == {}


def test_no_file_for_secrets_is_in_the_repository(committed):
    names = [path.name for path in committed]
    assert not [name for name in names if re.search(r"(\.key|\.p12|\.jks|id_rsa|id_ed25519|^\.env)$", name)]


def test_every_requirement_is_pinned_by_hash_and_names_no_index(committed):
    locks = {path: content.decode() for path, content in committed.items() if re.search(r"require.*\.txt$", str(path))}
    assert len(locks) >= 6
    for path, lock in locks.items():
        assert "index-url" not in lock, path
        assert "find-links" not in lock, path
        unhashed = [name for name, pins in requirements(lock).items() for _, hashes in pins if not hashes]
        assert unhashed == [], path


def test_every_npm_package_is_pinned_by_hash_and_names_no_address(project):
    packages = json.loads((project / "requirements" / "typescript" / "package-lock.json").read_text())["packages"]
    installed = {path: package for path, package in packages.items() if path}
    assert "node_modules/typescript" in installed
    for path, package in installed.items():
        assert package["version"], path
        assert package["integrity"].startswith("sha512-"), path
        assert "resolved" not in package, path


def test_every_requirement_of_the_layer_is_the_tested_one(project):
    layer = requirements((project / "layers" / "ota_core" / "requirements.txt").read_text())
    tested = requirements((project / "requirements" / "dev.txt").read_text())
    assert {name: tested[name] for name in layer} == layer


def test_every_requirement_of_a_build_server_is_the_tested_one(project):
    build_server = requirements((project / "requirements" / "ota-sign.txt").read_text())
    tested = requirements((project / "requirements" / "dev.txt").read_text())
    assert {name: tested[name] for name in build_server} == build_server
    distribution = tomllib.loads((project / "pyproject.toml").read_text())
    named = [
        *distribution["build-system"]["requires"],
        *distribution["project"]["dependencies"],
        *distribution["project"]["optional-dependencies"]["awskms"],
    ]
    assert {re.split("[>=]", requirement)[0] for requirement in named} <= build_server.keys()


def test_version_of_pg8000_whose_private_fields_are_used_is_bounded(project):
    files = [*(project / "requirements").glob("*.in"), project / "layers" / "ota_core" / "requirements.in"]
    named = [line for file in files for line in file.read_text().splitlines() if line.startswith("pg8000")]
    assert len(named) == 2
    assert [line for line in named if not re.match(r"pg8000>=[0-9.]+,<[0-9.]+\b", line)] == []


def test_bill_of_materials_lists_what_is_shipped(project):
    subprocess.run(["make", "--silent", "sbom"], cwd=project, check=True)
    bill = json.loads((project / "build" / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "esp32-ota"
    listed = {item["name"].replace("_", "-"): item["version"] for item in bill["components"]}
    assert all(item["licenses"] for item in bill["components"])
    layer = requirements((project / "layers" / "ota_core" / "requirements.txt").read_text())
    assert {name: pins[0][0] for name, pins in layer.items()}.items() <= listed.items()
    assert {"click", "securesystemslib"} <= set(listed)
