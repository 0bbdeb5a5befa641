"""The keys that sign: PEM files and AWS KMS keys, through securesystemslib; and how to create new ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from ota_core.formats.envelope import MAX_KEY_BITS, MIN_KEY_BITS, keyid_of

from . import files
from .errors import SigningError

KMS_PREFIX = "awskms:"
# securesystemslib's name for RSASSA-PKCS1-v1_5 with SHA-256.
_SCHEME = "rsa-pkcs1v15-sha256"
_MAX_PEM_BYTES = 64 * 1024
_MAKE_A_KEY = "Create a key with `ota-sign keygen`, or `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072`."


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that can sign, wherever its private half is.

    Attributes:
        public_key: RSA of `MIN_KEY_BITS` to `MAX_KEY_BITS`.
        sign: returns the RSASSA-PKCS1-v1_5 signature with SHA-256 over a message of any length. Raises SigningError.
    """

    public_key: RSAPublicKey
    sign: Callable[[bytes], bytes]


def load_signing_key(name: str, passphrase: Callable[[], bytes]) -> SigningKey:
    """The key that `--key` names: `awskms:<key id, ARN or alias>`, or a PEM file.

    Args:
        name: as given.
        passphrase: asked only for an encrypted file.

    Raises:
        SigningError: why the key cannot be used.
    """
    if name.startswith(KMS_PREFIX):
        return _load_from_kms(name.removeprefix(KMS_PREFIX))
    return _load_from_file(Path(name), passphrase)


def load_public_key(path: Path) -> RSAPublicKey:
    """Read a PEM public key.

    Raises:
        SigningError: file_unreadable or key_unusable.
    """
    pem = files.read(path, _MAX_PEM_BYTES)
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningError(
            "key_unusable",
            f"{path} does not hold a public key in PEM. `openssl pkey -in private.pem -pubout` prints one.",
        ) from error
    if not isinstance(key, RSAPublicKey):
        raise SigningError("key_unusable", f"{path} is not an RSA key. {_MAKE_A_KEY}")
    return key


def generate(bits: int) -> RSAPrivateKey:
    """Create a private key."""
    return generate_private_key(public_exponent=65537, key_size=bits)


def private_pem(key: RSAPrivateKey, passphrase: bytes | None) -> bytes:
    """PKCS #8 in PEM, encrypted if there is a passphrase."""
    encryption: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def public_pem(key: RSAPublicKey) -> bytes:
    """SubjectPublicKeyInfo in PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def c_header(key: RSAPublicKey) -> bytes:
    """A C header with the public key as a constant string, for firmware that will trust it."""
    keyid = keyid_of(key)
    lines = "\n".join(f'    "{line}\\n"' for line in public_pem(key).decode().splitlines())
    return (
        "#pragma once\n\n"
        f"/* A key that may sign releases; keyid {keyid} */\n"
        f"static const char OTA_TRUSTED_KEY_{keyid[:8]}[] =\n{lines};\n"
    ).encode()


def _load_from_file(path: Path, passphrase: Callable[[], bytes]) -> SigningKey:
    pem = files.read(path, _MAX_PEM_BYTES)
    try:
        try:
            key = load_pem_private_key(pem, None)
        except TypeError:  # It is encrypted.
            key = _decrypt(path, pem, passphrase())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningError(
            "key_unusable", f"{path} does not hold a readable private key in PEM. {_MAKE_A_KEY}"
        ) from error
    if not isinstance(key, RSAPrivateKey):
        raise SigningError("key_unusable", f"{path} is not an RSA key, and devices verify RSA only. {_MAKE_A_KEY}")
    public_key = key.public_key()
    _check_size(str(path), public_key)

    # Not at the top: it takes a quarter of a second, and most commands do not need it.
    from securesystemslib.signer import CryptoSigner, SSlibKey  # noqa: PLC0415

    signer = CryptoSigner(key, SSlibKey.from_crypto(public_key, keyid_of(public_key), _SCHEME))
    return SigningKey(public_key, lambda message: bytes.fromhex(signer.sign(message).signature))


def _decrypt(path: Path, pem: bytes, passphrase: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, passphrase)
    except ValueError as error:
        raise SigningError("passphrase_wrong", f"The passphrase does not open {path}.") from error


def _load_from_kms(key_id: str) -> SigningKey:
    with _kms_errors(key_id):
        from securesystemslib.signer import AWSSigner  # noqa: PLC0415 - brings boto3

        _, public = AWSSigner.import_(key_id, _SCHEME)
        signer = AWSSigner(key_id, public)
    public_key = load_pem_public_key(public.keyval["public"].encode())
    if not isinstance(public_key, RSAPublicKey):
        raise SigningError("key_unusable", f"The KMS key {key_id} is not an RSA key.")
    _check_size(f"The KMS key {key_id}", public_key)

    def sign(message: bytes) -> bytes:
        with _kms_errors(key_id):
            # AWSSigner sends the message's digest, so KMS's limit of 4,096 bytes does not apply.
            return bytes.fromhex(signer.sign(message).signature)

    return SigningKey(public_key, sign)


@contextmanager
def _kms_errors(key_id: str) -> Iterator[None]:
    try:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    except ImportError as error:
        raise SigningError(
            "kms_failed", "Signing with AWS KMS needs boto3. Install it with `pip install boto3`."
        ) from error
    from securesystemslib.exceptions import Error  # noqa: PLC0415

    # It also prints what it raises to standard error, and people would read it twice.
    logging.getLogger("securesystemslib").setLevel(logging.CRITICAL)
    try:
        yield
    except (BotoCoreError, ClientError, Error, ValueError) as error:
        raise SigningError(
            "kms_failed",
            f"The KMS key {key_id} cannot be used: {error}. Signing needs AWS credentials and a region, "
            "kms:GetPublicKey and kms:Sign on the key, and an RSA key for SIGN_VERIFY.",
        ) from error
    except KeyError as error:
        # For a key that only encrypts, KMS lists no signing algorithms.
        raise SigningError(
            "kms_failed", f"The KMS key {key_id} cannot sign. Create one with usage SIGN_VERIFY and spec RSA_3072."
        ) from error


def _check_size(name: str, key: RSAPublicKey) -> None:
    if not MIN_KEY_BITS <= key.key_size <= MAX_KEY_BITS:
        raise SigningError(
            "key_too_small" if key.key_size < MIN_KEY_BITS else "key_too_large",
            f"{name} has {key.key_size} bits; expected {MIN_KEY_BITS} to {MAX_KEY_BITS}. {_MAKE_A_KEY}",
        )
