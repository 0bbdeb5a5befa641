"""JSON as RFC 8259 has it, and nothing more lenient: what two parsers could read differently is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is no JSON number"
    raise ValueError(msg)


def _object_with_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 8259 section 4: names should be unique, else receivers differ in what they read.
    members = dict(pairs)
    if len(members) != len(pairs):
        msg = "an object has the same name twice"
        raise ValueError(msg)
    return members


def loads(raw: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse UTF-8 JSON.

    Raises:
        ValueError: not UTF-8, not JSON, a name twice in an object, NaN or Infinity, or nested too deeply.
    """
    try:
        return json.loads(
            raw.decode("utf-8"), object_pairs_hook=_object_with_unique_names, parse_constant=_refuse_constant
        )
    except RecursionError as error:
        msg = "nested too deeply"
        raise ValueError(msg) from error
