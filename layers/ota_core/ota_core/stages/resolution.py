"""Which devices a wave or a withdrawal tells, cut into the batches that are published."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ota_core.formats.notification import device_topic, fleet_topics, write_withdrawal
from ota_core.formats.targets import TaggedDevices
from ota_core.stores.firmware_store import BATCHES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ota_core.formats import contracts
    from ota_core.stores.firmware_store import FirmwareStore
    from ota_core.stores.interfaces import Waves
    from ota_core.stores.wave_store import StoredRelease

# A batch is what one publishing invocation does and, at worst, repeats.
BATCH_SIZE = 1000


class Resolution:
    """Resolves the waves of releases into batches of messages."""

    def __init__(self, store: FirmwareStore, waves: Waves, *, topic_prefix: str, api_url: str) -> None:
        self._store = store
        self._waves = waves
        self._topic_prefix = topic_prefix
        self._api_url = api_url

    def resolve_wave(
        self, release_id: str, execution: str, *, wave: int, percent: float, earlier_percent: float
    ) -> contracts.BatchIndex:
        """Let the devices of a wave download, and write its batches; the first wave also records the release's devices.

        Repeating it writes the same again.

        Raises:
            ReleaseSuperseded: the execution does not own the release.
        """
        release = self._waves.open_wave(release_id, execution, percent)
        batches = _Batches(self._store, f"{BATCHES}{release_id}/wave-{wave:02}/")
        payload = release.notification(self._api_url, percent)
        if release.is_for_whole_fleet:
            batches.add(fleet_topics(self._topic_prefix, release.manifest.product), payload, retain=True)
            return batches.close()
        if wave == 1:
            self._record_devices(release, execution)
        self._add_devices(batches, release, payload, above=earlier_percent, up_to=percent)
        return batches.close()

    def resolve_withdrawal(self, release_id: str, execution: str) -> contracts.BatchIndex:
        """Write the batches that withdraw a release: what stood before it stands again, and waiting devices are told.

        Raises:
            ReleaseSuperseded: the execution does not own the release.
        """
        release = self._waves.read(release_id, execution)
        batches = _Batches(self._store, f"{BATCHES}{release_id}/withdrawal/")
        withdrawal = write_withdrawal(release_id)
        if not release.is_for_whole_fleet:
            self._add_devices(batches, release, withdrawal, above=0, up_to=release.percent)
            return batches.close()
        everybody, of_product = fleet_topics(self._topic_prefix, release.manifest.product)
        batches.add([everybody, of_product], withdrawal, retain=False)
        for topic, product in ((everybody, None), (of_product, release.manifest.product)):
            standing = self._waves.last_word(product)
            # A retained message is removed by an empty one (MQTT 3.1.1 section 3.3.1.3).
            payload = standing.notification(self._api_url, standing.percent) if standing else b""
            batches.add([topic], payload, retain=True)
        return batches.close()

    def _record_devices(self, release: StoredRelease, execution: str) -> None:
        match release.manifest.targets:
            case TaggedDevices(tags):
                self._waves.record_tagged_devices(release.release_id, execution, tags)
            case _:

                def read_list() -> Iterable[bytes]:
                    return self._store.read_chunks(release.targets_key or "", release.targets_version_id or "")

                self._waves.record_listed_devices(release.release_id, execution, read_list)

    def _add_devices(
        self, batches: _Batches, release: StoredRelease, payload: bytes, *, above: float, up_to: float
    ) -> None:
        def write(number: int, macs: list[str]) -> None:
            if number == 0:
                batches.clear()
            batches.add([device_topic(self._topic_prefix, mac) for mac in macs], payload, retain=False)

        self._waves.for_each_batch(release.release_id, above=above, up_to=up_to, size=BATCH_SIZE, write=write)


class _Batches:
    """Writes numbered batches, and at the end their index."""

    def __init__(self, store: FirmwareStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self.clear()

    def clear(self) -> None:
        """Start over."""
        self._index: list[str] = []
        self._messages = 0

    def add(self, topics: list[str], payload: bytes, *, retain: bool) -> None:
        key = f"{self._prefix}{len(self._index):05}.json"
        batch: contracts.MessageBatch = {"topics": topics, "retain": retain, "payload": payload.decode()}
        line: contracts.PublishBatch = {"batch": key}
        self._store.write(key, json.dumps(batch, ensure_ascii=False).encode())
        self._index.append(json.dumps(line))
        self._messages += len(topics)

    def close(self) -> contracts.BatchIndex:
        key = f"{self._prefix}index.jsonl"
        self._store.write(key, "\n".join(self._index).encode())
        return {"key": key, "batches": len(self._index), "messages": self._messages}
