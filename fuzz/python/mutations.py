"""Changes to JSON documents that leave them JSON: a field's value, whether it is there, and how deep."""

import json
from random import Random
from typing import Any

_DEEP = "a value that is nested deeply"
# More than any fuzzer accepts; without it, three changes could turn a text into gigabytes.
_LONG = 10_000
_VALUES: list[Any] = [
    None,
    True,
    False,
    *(-1, 0, 1, 100, 101, 2**31 - 1, 2**31, 2**53 - 1, 2**53, 2**64, 10**400),
    *(-0.5, 0.5, 1.0, 100.0, 1e308, 5e-324),
    *("", "\0", "\n", "x" * 300, "auto", "all", "0", "1.0.0", "2026-01-31T12:00:00Z", "90d", "23:59", "../UTC"),
    [],
    {},
    [[]],
    _DEEP,
    {"": {}},
]
# What looks like a digit, a letter or a separator to a careless pattern.
_CHARACTERS: list[str] = [
    *"0129aAfFzZ-:./=+_ \t\n\r\0\\\x7f\U0001f600",
    *('"', "\N{ARABIC-INDIC DIGIT THREE}", "\N{FULLWIDTH DIGIT ONE}"),
    *("\N{LATIN SMALL LETTER LONG S}", "\N{KELVIN SIGN}", "\N{NO-BREAK SPACE}"),
]


def mutate_json(raw: bytes, random: Random) -> bytes | None:
    """The document with one to three changes; None if it is not JSON."""
    try:
        document = json.loads(raw)
        for _ in range(random.randint(1, 3)):
            document = _change(document, random)
        text = json.dumps(document, ensure_ascii=random.random() < 0.5, indent=random.choice([None, None, 1]))
    except (ValueError, RecursionError):
        return None
    # Written as text, because it is too deep for the writer.
    depth = random.choice([17, 200, *range(900, 1000)])
    return text.replace(f'"{_DEEP}"', "[" * depth + "]" * depth).encode(errors="surrogatepass")


def _change(value: Any, random: Random) -> Any:
    """One change somewhere in the value."""
    if isinstance(value, dict) and value:
        return _change_object(value, random)
    if isinstance(value, list) and value:
        return _change_list(value, random)
    if random.random() < 0.1:
        return random.choice([[value], {"x": value}, random.choice(_VALUES)])
    if isinstance(value, str):
        return _change_text(value, random)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return random.choice([value + 1, value - 1, -value, value / 2, value * 2, str(value), float(value)])
    return random.choice(_VALUES)


def _change_object(value: dict[str, Any], random: Random) -> dict[str, Any]:
    name = random.choice(list(value))
    match random.randrange(8):
        case 0:
            return {key: item for key, item in value.items() if key != name}
        case 1:
            return value | {_change_text(name, random): value[name]}
        case 2:
            return value | {name: random.choice(_VALUES)}
        case _:
            return value | {name: _change(value[name], random)}


def _change_list(value: list[Any], random: Random) -> list[Any]:
    at = random.randrange(len(value))
    match random.randrange(8):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return value[:at] + value[at:] * random.randint(2, 4)
        case 2:
            return [*value[:at], random.choice(_VALUES), *value[at:]]
        case _:
            return [*value[:at], _change(value[at], random), *value[at + 1 :]]


def _change_text(text: str, random: Random) -> str:
    at = random.randint(0, len(text))
    match random.randrange(5):
        case 0:
            return text[:at] + text[at + 1 :]
        case 1:
            return text[:at] + random.choice(_CHARACTERS) + text[at:]
        case 2:
            return text[:at] + random.choice(_CHARACTERS) + text[at + 1 :]
        case 3:
            return text[:at] + (text[at:] * random.choice([2, 100]))[:_LONG]
        case _:
            return random.choice([text.swapcase(), text[::-1], text.strip(), text[at:]])
