"""AWS Signature Version 4 for one kind of request, a small POST that is sent many times.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. botocore signs any
request, at seven times the cost, which was most of the cost of a message to a device; the tests compare the two.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"


class PostSigner:
    """Signs requests to one host, with one set of credentials and one body."""

    def __init__(
        self, access_key: str, secret_key: str, token: str | None, *, region: str, service: str, host: str, body: bytes
    ) -> None:
        """Args: host: as in the Host header, with the port unless it is the scheme's default."""
        self._access_key = access_key
        self._secret_key = secret_key
        self._token = token
        self._region = region
        self._service = service
        self._host = host
        self._body_sha256 = hashlib.sha256(body).hexdigest()
        self._day_key = ("", b"")
        self._signed_headers = "host;x-amz-date" + (";x-amz-security-token" if token else "")

    def headers(self, path: str, query: str, seconds: float) -> dict[str, str]:
        """The headers that sign a request.

        Args:
            path: as it is sent, percent-encoded.
            query: as it is sent: percent-encoded, and sorted by name.
            seconds: the time, since 1970. AWS accepts the request for five minutes.
        """
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
        headers = {"Host": self._host, "X-Amz-Date": moment}
        if self._token:
            headers["X-Amz-Security-Token"] = self._token
        canonical_headers = "".join(f"{name.lower()}:{value}\n" for name, value in headers.items())
        # For every service except S3, the path is encoded a second time.
        canonical = f"POST\n{quote(path)}\n{query}\n{canonical_headers}\n{self._signed_headers}\n{self._body_sha256}"
        scope = f"{moment[:8]}/{self._region}/{self._service}/aws4_request"
        to_sign = f"{_ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._key(moment[:8]), to_sign.encode(), "sha256").hex()
        headers["Authorization"] = (
            f"{_ALGORITHM} Credential={self._access_key}/{scope}, "
            f"SignedHeaders={self._signed_headers}, Signature={signature}"
        )
        return headers

    def _key(self, day: str) -> bytes:
        """The signing key of a day."""
        if self._day_key[0] != day:
            key = b"AWS4" + self._secret_key.encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day_key = (day, key)
        return self._day_key[1]
