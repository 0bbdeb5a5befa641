"""The fourth stage: one batch of messages, published once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ota_core.formats import contracts
    from ota_core.stores.firmware_store import FirmwareStore


class Notifier(Protocol):
    """Publishes one payload to many topics; `DeviceNotifier` does."""

    def publish(self, topics: Sequence[str], payload: bytes, *, retain: bool) -> None: ...  # noqa: D102


def publish_batch(store: FirmwareStore, notifier: Notifier, batch_key: str) -> int:
    """Publish the messages of a batch, unless an earlier attempt, of this execution or another, did.

    A batch that breaks halfway is repeated from the start; one that is done leaves a mark beside it.

    Returns:
        How many messages were published: 0 for a batch that was done before.
    """
    mark = f"{batch_key}.done"
    with ThreadPoolExecutor() as pool:
        # Read it while checking for the mark, because a batch is hardly ever done.
        reading = pool.submit(store.read_current, batch_key)
        if store.is_there(mark):
            return 0
        batch: contracts.MessageBatch = json.loads(reading.result())
    notifier.publish(batch["topics"], batch["payload"].encode(), retain=batch["retain"])
    store.write(mark, b"")
    return len(batch["topics"])
