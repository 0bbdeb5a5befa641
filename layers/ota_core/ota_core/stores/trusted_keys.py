"""The trusted public keys: SSM parameters under `/<stack>/trusted-keys/<keyid>`.

Every validation asks again: a key is trusted as soon as its parameter is there, and revoked as soon as it is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ota_core.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


class TrustedKeys:
    """Looks trusted keys up in SSM Parameter Store."""

    def __init__(self, ssm: SSMClient, prefix: str) -> None:
        """Args: prefix: the parameters' path without a trailing slash."""
        self._ssm = ssm
        self._prefix = prefix

    def find(self, keyid: str) -> RSAPublicKey | None:
        """The trusted key of this id, or None.

        Raises:
            ConfigurationError: the parameter does not hold a PEM RSA public key.
        """
        name = f"{self._prefix}/{keyid}"
        try:
            pem = self._ssm.get_parameter(Name=name)["Parameter"]["Value"]
        except self._ssm.exceptions.ParameterNotFound:
            return None
        try:
            key = load_pem_public_key(pem.encode())
        except ValueError as error:
            raise _unreadable(name, str(error)) from error
        if not isinstance(key, RSAPublicKey):
            raise _unreadable(name, f"it is a {type(key).__name__}")
        return key


def _unreadable(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        "trusted_key_unreadable",
        f"The parameter {name} does not hold an RSA public key in PEM ({why}). "
        "Put the output of `ota-sign keygen` there.",
    )
