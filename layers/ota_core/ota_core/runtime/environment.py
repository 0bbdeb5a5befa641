"""A function's settings: its environment variables, read once into a frozen, typed object."""

from __future__ import annotations

import dataclasses
import os
import typing
from typing import TypeVar

from ota_core.errors import ConfigurationError

_Settings = TypeVar("_Settings")


def read_environment(settings_type: type[_Settings]) -> _Settings:
    """Fill a dataclass of `str` and `int` fields from the variables of the same names in upper case.

    Raises:
        ConfigurationError: a variable without a default is missing or empty, or one that must be an integer is not.
    """
    hints = typing.get_type_hints(settings_type)
    values: dict[str, str | int] = {}
    for field in dataclasses.fields(settings_type):  # type: ignore[arg-type] # a dataclass, by contract
        name = field.name.upper()
        text = os.environ.get(name, "")
        if not text:
            if field.default is dataclasses.MISSING:
                raise ConfigurationError(
                    "setting_missing", f"The environment variable {name} is not set; the template sets it."
                )
            continue
        if hints[field.name] is int:
            if not text.isdecimal():
                raise ConfigurationError("setting_invalid", f"{name} is {text!r}; expected a whole number.")
            values[field.name] = int(text)
        else:
            values[field.name] = text
    return settings_type(**values)
