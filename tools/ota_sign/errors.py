"""What stops ota-sign without being the release's fault."""

from __future__ import annotations

from ota_core.errors import OtaError


class SigningError(OtaError):
    """A file, a key or a key service that cannot be used as asked."""
