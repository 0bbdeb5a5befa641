"""How tests say that something is rejected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ota_core.errors import DropRejected, RejectionCode


@contextmanager
def rejected(code: RejectionCode, message: str = "") -> Iterator[pytest.ExceptionInfo[DropRejected]]:
    """The block must reject for this code, with a message that holds the given text and tells a person what to do."""
    with pytest.raises(DropRejected) as caught:
        yield caught
    assert (caught.value.code, caught.value.rejection_code) == (code.value, code)
    assert message in caught.value.message
    assert re.search(r"; expected .+\. .+\.$", caught.value.message, re.DOTALL), caught.value.message
