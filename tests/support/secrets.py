"""Finds secrets where none may be: in the repository by their form, in a run's logs by their value too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# What has the form of a secret, whoever's it is.
FORMS = {
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:\s|\\n)*[A-Za-z0-9+/=]{20}"),
    "AWS access key": re.compile(r"\b(?:AKIA|ASIA)(?!IOSFODNN7EXAMPLE)[0-9A-Z]{16}\b"),
    "AWS secret key": re.compile(r"(?i)secret_?access_?key\W{1,5}(?!wJalrXUtnFEMI)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"),
    "password in a URL": re.compile(r"[a-z]+://[^\s:/@{}<>$]+:[^\s:/@{}<>$*]{6,}@"),
    "password": re.compile(r"(?i)\b(?:password|passphrase|api_?key)[\"']?\s*[:=]\s*[\"'][A-Za-z0-9+/_-]{16,}[\"']"),
    "token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|xox[abps]-[0-9A-Za-z-]{10,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.)"),
    "presigned request": re.compile(r"X-Amz-(?:Signature|Security-Token)=[A-Za-z0-9%/+]{20}"),
}


def forms_in(text: str) -> list[str]:
    """The kinds of secrets that the text seems to hold."""
    return [kind for kind, form in FORMS.items() if form.search(text)]


def values_in(text: str, secrets: Mapping[str, str]) -> list[str]:
    """The names of those secrets that the text holds."""
    return [name for name, value in secrets.items() if value in text]


def lines_of_key(pem: str) -> list[str]:
    """The inner lines of a private key: one of them gives it away, however the log breaks it."""
    inner = [line for line in pem.strip().splitlines() if not line.startswith("-----")]
    # The first one says little more than that it is a key, and of what kind.
    return inner[1:-1] or inner


def leaks(logs: Iterable[tuple[str, str]], secrets: Mapping[str, str]) -> list[str]:
    """What a run's logs give away.

    Args:
        logs: names and texts.
        secrets: names and values.
    """
    return [f"{where}: {what}" for where, text in logs for what in [*values_in(text, secrets), *forms_in(text)]]
