"""The commands of the documentation, as readers copy them."""

from __future__ import annotations

import re
from pathlib import Path

_BLOCK = re.compile(r"^<!-- run: (?P<name>[^>]+?) -->\n```sh\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def shell_blocks(page: Path, name: str) -> list[str]:
    """The shell blocks of a page after the comment `<!-- run: NAME -->`, which readers do not see, in their order."""
    found = [block["text"] for block in _BLOCK.finditer(page.read_text()) if block["name"] == name]
    if not found:
        raise LookupError(f"{page} has no shell block to run as {name}")
    return found
