"""What the fuzzers check (fuzz/python/targets.py) holds for their first inputs, what they once found, and near it."""

import json
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
sys.path.insert(0, str(FUZZ / "python"))
from mutations import mutate_json  # noqa: E402
from targets import JSON_TARGETS, TARGETS  # noqa: E402


def corpus(name):
    return [path.read_bytes() for path in sorted((FUZZ / "corpus" / name).iterdir())]


def spliced(inputs):
    """Inputs with bytes of one put into another."""
    pieces = st.sampled_from(inputs) | st.binary(max_size=8)
    return st.builds(
        lambda whole, piece, at, drop: whole[: at % (len(whole) + 1)] + piece + whole[at % (len(whole) + 1) + drop :],
        st.sampled_from(inputs),
        pieces,
        st.integers(0, 4096),
        st.integers(0, 16),
    )


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_holds_and_the_parser_accepts_some_of_it(name):
    accepted = [TARGETS[name](raw) for raw in corpus(name)]
    assert any(accepted)


@pytest.mark.parametrize("name", TARGETS)
def test_bytes_near_the_corpus_hold(name):
    @given(spliced(corpus(name)))
    def holds(raw):
        TARGETS[name](raw)

    holds()


@pytest.mark.parametrize("name", sorted(JSON_TARGETS))
def test_documents_near_the_corpus_hold(name):
    @given(st.sampled_from(corpus(name)), st.randoms(use_true_random=False))
    def holds(raw, random):
        mutated = mutate_json(raw, random)
        assert mutated is None or TARGETS[name](mutated) in {True, False}

    holds()


def test_mutations_stay_small():
    """Fuzzers have a GiB of memory, and take 4 KiB of what mutations make."""
    raw = json.dumps({"text": "x" * 4000}).encode()
    random = Random(1)  # noqa: S311 - no secret
    mutated = [mutate_json(raw, random) for _ in range(500)]
    assert max(len(text) for text in mutated if text) < 200_000
