"""Fuzz one parser, guided by coverage: python fuzz/python/fuzz_parser.py NAME [libFuzzer's options] [corpora]."""

import sys
from random import Random

import atheris
from mutations import mutate_json

# Coverage of our parsers only; the second readers' does not matter.
with atheris.instrument_imports(include=["ota_core"]):
    from targets import JSON_TARGETS, TARGETS


def mutate(raw: bytes, max_size: int, seed: int) -> bytes:
    """Change a document as JSON half of the time, because changes to its bytes rarely leave it valid."""
    mutated = mutate_json(raw, Random(seed)) if seed % 2 else None
    return atheris.Mutate(raw, max_size) if mutated is None else mutated[:max_size]


if __name__ == "__main__":
    name = sys.argv.pop(1)
    mutator = {"custom_mutator": mutate} if name in JSON_TARGETS else {}
    atheris.Setup(sys.argv, lambda raw: TARGETS[name](raw) and None, **mutator)
    atheris.Fuzz()
