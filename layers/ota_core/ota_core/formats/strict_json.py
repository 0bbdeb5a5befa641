"""JSON as RFC 8259 defines it, nothing more lenient: what two parsers could read differently is refused."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any, NoReturn

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
# What JSON calls the values that `loads` returns, for messages.
KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "an integer",
    float: "a number with a fraction or exponent",
    bool: "true or false",
    type(None): "null",
}


def loads(raw: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse UTF-8 JSON.

    Raises:
        ValueError: not UTF-8, not JSON, a name that occurs twice in an object, a number that is not finite, half a
            surrogate pair, or nested too deeply.
    """
    text = raw.decode("utf-8")
    try:
        value = _DECODER.decode(text)
        if _SURROGATE_ESCAPE.search(text):
            _refuse_half_surrogates(value)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def kind_of(value: object) -> str:
    """What JSON calls a value that `loads` returned, for messages: `a string`, `an object`."""
    return KINDS[type(value)]


def decode_base64(text: str) -> bytes:
    """Decode base64 (RFC 4648 section 4) in its one canonical spelling: padded, unused bits zero (section 3.5).

    The devices are as strict, so they accept exactly what the pipeline accepts.

    Raises:
        ValueError: not base64, or another spelling.
    """
    decoded = base64.b64decode(text, validate=True)
    if base64.b64encode(decoded).decode() != text:
        raise ValueError("not the canonical spelling")
    return decoded


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is out of range")
    return number


def _object_with_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 8259 section 4: names should be unique, or receivers differ in what they read.
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has the same name twice")
    return members


def _refuse_half_surrogates(value: object) -> None:
    # RFC 8259 section 8.2: their meaning is unpredictable. UTF-8 cannot encode them, so writing them again fails.
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a string has half a surrogate pair") from error


# Created once, because that costs as much as reading a short document.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_with_unique_names, parse_constant=_refuse_constant, parse_float=_finite
)
