"""The third stage: whom a release is for, recorded and cut into the batches that are published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import targets
from .firmware_store import WORK
from .notification import device_topic, fleet_topics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .firmware_store import FirmwareStore
    from .release_store import ReleaseStore

# A batch is what one publishing invocation does and, at worst, repeats.
BATCH_SIZE = 1000


@dataclass(frozen=True, slots=True)
class TargetList:
    """The stored list of a release's devices, one MAC a line."""

    key: str
    version_id: str


@dataclass(frozen=True, slots=True)
class BatchIndex:
    """The object that lists the batches, one JSON object a line, and how many messages they hold."""

    key: str
    batches: int
    messages: int


class Resolution:
    """Resolves releases to batches of messages."""

    def __init__(self, store: FirmwareStore, releases: ReleaseStore, topic_prefix: str) -> None:
        self._store = store
        self._releases = releases
        self._topic_prefix = topic_prefix

    def resolve(
        self, *, release_id: str, product: str, notification: bytes, listed: TargetList | None, execution: str
    ) -> BatchIndex:
        """Record a release's targets and write its batches. Repeating it writes the same again.

        Raises:
            ReleaseSuperseded: the execution does not own the release any more.
        """
        if listed is None:
            topics: Iterator[list[str]] = iter([fleet_topics(self._topic_prefix, product)])
        else:

            def read_list() -> Iterable[bytes]:
                return self._store.read_chunks(listed.key, listed.version_id)

            self._releases.record_targets(release_id, execution, read_list)
            topics = targets.batches((device_topic(self._topic_prefix, mac) for mac in _lines(read_list())), BATCH_SIZE)
        return self._write_batches(release_id, topics, notification, retain=listed is None)

    def _write_batches(
        self, release_id: str, topics: Iterator[list[str]], notification: bytes, *, retain: bool
    ) -> BatchIndex:
        index = []
        messages = 0
        for number, batch in enumerate(topics):
            key = f"{WORK}{release_id}/batches/{number:05}.json"
            document = {"topics": batch, "retain": retain, "payload": notification.decode()}
            self._store.write(key, json.dumps(document, ensure_ascii=False).encode())
            index.append(json.dumps({"batch": key}))
            messages += len(batch)
        key = f"{WORK}{release_id}/batches/index.jsonl"
        self._store.write(key, "\n".join(index).encode())
        return BatchIndex(key, len(index), messages)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode()
