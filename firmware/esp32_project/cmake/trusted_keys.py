"""Checks that devices can use the keys that are to be built into them. Needs nothing but Python's standard library.

    python3 trusted_keys.py FILE.pem...

Prints each key's id, the name under which a stack trusts it. Ends with status 1 and one line that says why if a
file is not the public key of an RSA key pair of 2048 to 4096 bits in PEM, or holds the same key as another one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import sys
from pathlib import Path

# What the device verifies (components/OTAUpdateManager/src/signature_verifier.cpp).
MIN_BITS, MAX_BITS = 2048, 4096
# The only exponent in use (NIST SP 800-89 section 5.3.3 asks for 65537 or more).
EXPONENT = 65537

_PEM = re.compile(r"\s*-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+?)\s*-----END PUBLIC KEY-----\s*")
_SEQUENCE, _INTEGER, _BIT_STRING = 0x30, 0x02, 0x03
# AlgorithmIdentifier of rsaEncryption, 1.2.840.113549.1.1.1, with its NULL (RFC 8017 appendix A.1).
_RSA = bytes.fromhex("300d06092a864886f70d0101010500")
# Other algorithms, by the start of their AlgorithmIdentifier's content: OID with tag and length.
_OTHERS = {
    bytes.fromhex("06072a8648ce3d0201"): "an elliptic curve key",
    bytes.fromhex("06032b6570"): "an Ed25519 key",
    bytes.fromhex("06092a864886f70d01010a"): "an RSASSA-PSS key",
}


class KeyUnusable(Exception):  # noqa: N818 - the state of the key
    """What the file holds instead of a key that devices can use."""


def element(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the DER element that the bytes begin with, and what follows it (X.690 section 8.1).

    Raises:
        KeyUnusable: it has another tag, or is cut off.
    """
    if len(der) < 2 or der[0] != tag:
        raise KeyUnusable("a damaged public key")
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    content = der[start : start + length]
    if len(content) != length:
        raise KeyUnusable("a public key that is cut off")
    return content, der[start + length :]


def read_key(text: str) -> tuple[str, int]:
    """The key id of a public key in PEM (SubjectPublicKeyInfo, RFC 5280 section 4.1.2.7), and its modulus.

    Raises:
        KeyUnusable: devices could not verify a signature with it.
    """
    if "PRIVATE KEY" in text:
        raise KeyUnusable("a private key, which anyone could read in every image")
    if "BEGIN CERTIFICATE" in text:
        raise KeyUnusable("a certificate")
    found = _PEM.fullmatch(text)
    if found is None:
        raise KeyUnusable("no public key in PEM (-----BEGIN PUBLIC KEY-----)")
    try:
        der = base64.b64decode("".join(found[1].split()), validate=True)
    except binascii.Error as error:
        raise KeyUnusable("a damaged public key") from error
    content, rest = element(der, _SEQUENCE)
    if rest:
        raise KeyUnusable("a damaged public key")
    if not content.startswith(_RSA):
        algorithm, _ = element(content, _SEQUENCE)
        raise KeyUnusable(
            next((name for start, name in _OTHERS.items() if algorithm.startswith(start)), "a key that is not RSA")
        )
    bits, after_bits = element(content[len(_RSA) :], _BIT_STRING)
    numbers, after_numbers = element(bits[1:], _SEQUENCE)
    modulus, rest = element(numbers, _INTEGER)
    exponent, after_exponent = element(rest, _INTEGER)
    if after_bits or after_numbers or after_exponent:
        raise KeyUnusable("a damaged public key")
    number = int.from_bytes(modulus, "big")
    size = number.bit_length()
    if not MIN_BITS <= size <= MAX_BITS:
        raise KeyUnusable(f"an RSA key of {size} bits")
    if int.from_bytes(exponent, "big") != EXPONENT:
        raise KeyUnusable(f"an RSA key with the exponent {int.from_bytes(exponent, 'big')}")
    return hashlib.sha256(der).hexdigest(), number


def main(files: list[str]) -> int:
    """Check the files; the exit status."""
    keys: dict[int, str] = {}
    for file in files:
        try:
            keyid, modulus = read_key(Path(file).read_bytes().decode("ascii", errors="replace"))
        except KeyUnusable as seen:
            print(
                f"{file} holds {seen}; expected the public key of an RSA key pair of {MIN_BITS} to {MAX_BITS} bits. "
                f"Replace it: openssl rsa -in <private key> -pubout -out {file}",
                file=sys.stderr,
            )
            return 1
        if modulus in keys:
            print(
                f"{file} holds the same key as {keys[modulus]}; a reserve must be another key. Make one with "
                "`openssl genrsa -out reserve-key.pem 3072`, and put its public key here.",
                file=sys.stderr,
            )
            return 1
        keys[modulus] = file
        print(f"devices trust {Path(file).name}: RSA, {modulus.bit_length()} bits, key id {keyid}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
