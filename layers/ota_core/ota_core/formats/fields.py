"""Reads the fields of a JSON object, and words their errors the same way for every document."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from ota_core.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Callable

_Value = TypeVar("_Value")


class Fields:
    """Takes typed fields out of a JSON object.

    Errors come from `reject(seen, expected)`, because each document has its own.
    """

    __slots__ = ("_document", "_reject", "_where")

    def __init__(self, document: Any, where: str, reject: Callable[[str, str], Exception]) -> None:  # noqa: ANN401 - any JSON value
        """Args: where: how messages name the document: `the manifest`, `'firmware'`."""
        if not isinstance(document, dict):
            raise reject(f"{where} is {strict_json.kind_of(document)}", "a JSON object")
        self._document = document
        self._where = where
        self._reject = reject

    def __contains__(self, name: str) -> bool:
        return name in self._document

    def allow_only(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        """Refuse an object that lacks a required field or has one that is neither required nor optional."""
        missing = [name for name in required if name not in self._document]
        if missing:
            raise self._reject(f"{self._where} lacks {', '.join(map(repr, missing))}", "every required field")
        unknown = [name for name in self._document if name not in required + optional]
        if unknown:
            raise self._reject(
                f"{self._where} has unknown fields {', '.join(repr(name[:40]) for name in unknown[:5])}",
                f"only {', '.join(required + optional)}",
            )

    def value(self, name: str) -> Any:  # noqa: ANN401 - any JSON value
        """A field of any kind; None if it is missing."""
        return self._document.get(name)

    def take(self, name: str, kind: type[_Value], default: _Value | None = None) -> _Value:
        """A field of this kind; `default`, if there is one, replaces a missing field."""
        value = self._document.get(name)
        # bool is an int in Python, but not in JSON.
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        if name not in self._document:
            if default is not None:
                return default
            raise self._reject(f"{name!r} is missing", strict_json.KINDS[kind])
        raise self._reject(f"{name!r} is {strict_json.kind_of(value)}", strict_json.KINDS[kind])

    def integer(self, name: str, least: int, most: int, default: int | None = None) -> int:
        """An integer from `least` to `most`."""
        value = self.take(name, int, default)
        if not least <= value <= most:
            raise self._reject(f"{name!r} is {str(value)[:40]}", f"an integer from {least} to {most}")
        return value

    def number(self, name: str, least: float, most: float, default: float | None = None) -> float:
        """A number, whole or not, from `least` to `most`."""
        value = self._document.get(name, default)
        expected = f"a number from {least:g} to {most:g}"
        if not isinstance(value, int | float) or isinstance(value, bool):
            seen = strict_json.kind_of(value) if name in self._document else "missing"
            raise self._reject(f"{name!r} is {seen}", expected)
        if not least <= value <= most:
            raise self._reject(f"{name!r} is {str(value)[:40]}", expected)
        return float(value)

    def matching(self, name: str, pattern: re.Pattern[str], expected: str) -> str:
        """A string that matches the pattern, which `expected` describes for people."""
        value = self.take(name, str)
        if pattern.fullmatch(value) is None:
            raise self._reject(f"{name!r} is {value[:80]!r}", expected)
        return value
