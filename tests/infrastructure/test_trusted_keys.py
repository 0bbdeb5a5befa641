"""The firmware's build takes only keys that devices can use: a reserve that fails is noticed when it is too late."""

import base64
import hashlib
import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from support.drops import key

BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)


def pem_of(public_key):
    return public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def rsa_key(bits=2048, exponent=65537):
    return rsa.generate_private_key(exponent, bits)


def private_pem():
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return rsa_key().private_bytes(Encoding.PEM, *form).decode()


def certificate():
    signer, name = rsa_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "reserve")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(signer.public_key())
    built = built.serial_number(1).not_valid_before(BEGIN).not_valid_after(END)
    return built.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def cut(pem):
    lines = pem.splitlines()
    return "\n".join([*lines[:3], lines[-1]]) + "\n"


@pytest.fixture
def embed(project, tmp_path):
    """Runs the build's step on a folder with the release key and, if it is given, another file."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake, which builds the firmware; get it: tools/install_packages.sh firmware")
    folder, header = tmp_path / "keys", tmp_path / "trusted_keys.h"
    folder.mkdir()
    (folder / "release.pem").write_text(key().public_pem)

    def run(reserve=None):
        if reserve is not None:
            (folder / "reserve.pem").write_text(reserve)
        script = project / "firmware" / "esp32_project" / "cmake" / "trusted_keys.cmake"
        done = subprocess.run(
            ["cmake", f"-DKEYS={folder}", f"-DHEADER={header}", "-P", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        # CMake breaks lines.
        said = " ".join((done.stdout + done.stderr).split())
        return done.returncode, said, header.read_text() if header.exists() else None

    return run


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_key_that_devices_can_use_is_built_in_and_named_by_its_key_id(embed, bits):
    public_key = rsa_key(bits).public_key()
    status, said, header = embed(pem_of(public_key))
    assert status == 0, said
    der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert f"reserve.pem: RSA, {bits} bits, key id {hashlib.sha256(der).hexdigest()}" in said
    assert f"release.pem: RSA, 2048 bits, key id {key().keyid}" in said
    assert pem_of(public_key) in header
    assert key().public_pem in header


def der_element(tag, content):
    length = len(content).to_bytes(2, "big")
    return bytes([tag, 0x82]) + length + content


def encoded_again(public_key, after=b""):
    """The same key with a zero byte more before its modulus, as BER allows, and bytes after its exponent."""
    numbers = public_key.public_numbers()
    modulus = der_element(0x02, b"\0\0" + numbers.n.to_bytes(256, "big"))
    exponent = b"\x02\x03" + numbers.e.to_bytes(3, "big")
    bits = der_element(0x03, b"\0" + der_element(0x30, modulus + exponent + after))
    der = der_element(0x30, bytes.fromhex("300d06092a864886f70d0101010500") + bits)
    return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"


UNUSABLE = {
    "an elliptic curve key": lambda: pem_of(ec.generate_private_key(ec.SECP256R1()).public_key()),
    "an Ed25519 key": lambda: pem_of(ed25519.Ed25519PrivateKey.generate().public_key()),
    "an RSA key of 1024 bits": lambda: pem_of(rsa_key(1024).public_key()),
    "an RSA key of 4104 bits": lambda: key("large", 4104).public_pem,
    "an RSA key with the exponent 3": lambda: pem_of(rsa_key(exponent=3).public_key()),
    "a private key": private_pem,
    "a certificate": certificate,
    "no public key in PEM": lambda: "ssh-rsa AAAAB3NzaC1yc2E= reserve\n",
    "no public key in PEM (": lambda: "",
    "a public key that is cut off": lambda: cut(key("reserve").public_pem),
    "a damaged public key": lambda: encoded_again(rsa_key().public_key(), after=b"\x02\x01\x00"),
    "the same key as /": lambda: encoded_again(key().public),
    "the same key as": lambda: key().public_pem,
    "the same key as ": lambda: key().public_pem.replace("\n", "\r\n") + "\n",
}


@pytest.mark.parametrize("seen", UNUSABLE)
def test_key_that_no_device_can_use_stops_the_build(embed, seen):
    status, said, header = embed(UNUSABLE[seen]())
    assert status != 0
    assert f"reserve.pem holds {seen}" in said
    assert "openssl" in said, "what to do next"
    assert header is None


def test_one_key_alone_stops_the_build(embed):
    status, said, header = embed()
    assert status != 0
    assert "Found 1 public key(s)" in said
    assert header is None
