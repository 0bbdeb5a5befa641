"""What PostgreSQL knows of a release when one of its waves is published, or when it is withdrawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ota_core.formats.envelope import payload_of
from ota_core.formats.manifest import Manifest, parse_manifest
from ota_core.formats.notification import write_notification
from ota_core.formats.targets import AllDevices
from ota_core.stores.release_store import OFFERED, ReleaseSuperseded, lock_owned_release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pg8000.native import Connection

    from ota_core.stores.database import Database


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """A release as it was registered; `percent` of its devices have been told so far."""

    release_id: str
    version: str
    envelope: str
    manifest: Manifest
    percent: float
    targets_key: str | None
    targets_version_id: str | None

    @property
    def is_for_whole_fleet(self) -> bool:
        """Whether one message tells every device."""
        return isinstance(self.manifest.targets, AllDevices)

    def notification(self, api_url: str, percent: float) -> bytes:
        """What devices are told when waves up to `percent` are published."""
        return write_notification(
            release_id=self.release_id,
            manifest=self.manifest,
            version=self.version,
            envelope=self.envelope.encode(),
            api_url=api_url,
            # A listed device is told on its own topic when its wave comes, so it need not work out its cohort.
            percent=percent if self.is_for_whole_fleet else 100,
        )


class WaveStore:
    """Reads releases and their devices, wave by wave."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, release_id: str, execution: str) -> StoredRelease:
        """A release that this execution owns.

        Raises:
            ReleaseSuperseded: the execution does not own it.
        """
        rows = self._database.statement(
            f"{_SELECT} WHERE release_id = :release_id AND execution_arn = :execution",
            release_id=release_id,
            execution=execution,
        )
        return _owned(rows, release_id)

    def open_wave(self, release_id: str, execution: str, percent: float) -> StoredRelease:
        """Let the devices of a wave download, because they are about to be told; gives the release.

        Args:
            release_id: the release.
            execution: ARN of the execution that owns it.
            percent: the share of devices that the waves reach, this one included.

        Raises:
            ReleaseSuperseded: the execution does not own it.
        """
        rows = self._database.statement(
            "UPDATE releases SET reach_percent = :percent WHERE release_id = :release_id"  # noqa: S608 - the columns are ours
            f" AND execution_arn = :execution RETURNING {_COLUMNS}",
            release_id=release_id,
            execution=execution,
            percent=percent,
        )
        return _owned(rows, release_id)

    def record_listed_devices(self, release_id: str, execution: str, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Record the devices that a release lists, replacing what an earlier attempt recorded.

        Args:
            release_id: the release.
            execution: ARN of the execution that owns it.
            chunks: returns a text with one `AA:BB:CC:DD:EE:FF` per line, in pieces; called once per attempt.

        Raises:
            ReleaseSuperseded: the execution no longer owns the release.
        """

        def work(connection: Connection) -> None:
            release = lock_owned_release(connection, release_id, execution)
            connection.run("DELETE FROM release_targets WHERE release = :release", release=release)
            connection.run("COPY release_targets (release, mac) FROM STDIN", stream=_copy_rows(release, chunks()))

        self._database.transaction(work)

    def record_tagged_devices(self, release_id: str, execution: str, tags: tuple[str, ...]) -> None:
        """Record the devices that have any of the tags now, once: later waves are for the same devices.

        Raises:
            ReleaseSuperseded: the execution no longer owns the release.
        """

        def work(connection: Connection) -> None:
            release = lock_owned_release(connection, release_id, execution)
            connection.run(
                "INSERT INTO release_targets (release, mac)"
                " SELECT DISTINCT CAST(:release AS bigint), mac FROM device_tags WHERE tag = ANY(:tags)"
                " AND NOT EXISTS (SELECT FROM release_targets WHERE release = :release)",
                release=release,
                tags=list(tags),
            )
            connection.run(
                "UPDATE releases SET target_count ="
                " (SELECT count(*) FROM release_targets WHERE release = :release) WHERE id = :release",
                release=release,
            )

        self._database.transaction(work)

    def for_each_batch(
        self, release_id: str, *, above: float, up_to: float, size: int, write: Callable[[int, list[str]], None]
    ) -> None:
        """Hand the recorded devices of a cohort, MACs in order, to `write` in numbered batches.

        Args:
            release_id: the release.
            above: percent that earlier waves reached.
            up_to: percent that this wave reaches.
            size: of a batch, in devices.
            write: takes a batch; a repeated attempt starts at number 0 again.
        """
        # Working out a device's cohort costs more than reading its row, and no device is above 100 % or below 0.
        is_reached = "in_cohort(:release_id, mac, :up_to)" if up_to < 100 else "true"
        was_reached = "in_cohort(:release_id, mac, :above)" if above > 0 else "false"

        def work(connection: Connection) -> None:
            connection.run(
                "DECLARE cohort NO SCROLL CURSOR FOR SELECT upper(mac::text) FROM release_targets"  # noqa: S608 - ours
                " WHERE release = (SELECT id FROM releases WHERE release_id = :release_id)"
                f" AND {is_reached} AND NOT {was_reached} ORDER BY mac",
                release_id=release_id,
                up_to=up_to,
                above=above,
            )
            number = 0
            while rows := connection.run(f"FETCH {size:d} FROM cohort"):
                write(number, [mac for (mac,) in rows])
                number += 1

        self._database.transaction(work)

    def last_word(self, product: str | None) -> StoredRelease | None:
        """The fleet-wide release that stands now: a product's, or the one of any product that was told last."""

        def work(connection: Connection) -> StoredRelease | None:
            of_product = "product = :product ORDER BY sequence" if product else "true ORDER BY wave_published_at"
            rows = connection.run(
                f"{_SELECT} WHERE {OFFERED} AND target_count IS NULL"
                f" AND waves_published > 0 AND {of_product} DESC LIMIT 1",
                product=product,
            )
            return _stored(rows[0]) if rows else None

        return self._database.transaction(work)


_COLUMNS = "release_id, version, envelope, cohort_percent, targets_key, targets_version_id"
_SELECT = f"SELECT {_COLUMNS} FROM releases"  # noqa: S608 - the columns are ours


def _owned(rows: list[list[Any]], release_id: str) -> StoredRelease:
    if not rows:
        raise ReleaseSuperseded(release_id)
    return _stored(rows[0])


def _stored(row: list[Any]) -> StoredRelease:
    release_id, version, envelope, percent, targets_key, targets_version_id = row
    manifest = parse_manifest(payload_of(envelope))
    return StoredRelease(release_id, version, envelope, manifest, percent, targets_key, targets_version_id)


def _copy_rows(release: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Put the release's id before every line of a text that comes in chunks, as a column in COPY's text format."""
    column = b"%d\t" % release
    at_line_start = True
    for chunk in chunks:
        if at_line_start:
            yield column
        at_line_start = chunk.endswith(b"\n")
        lines = chunk[:-1] if at_line_start else chunk
        yield lines.replace(b"\n", b"\n" + column)
        if at_line_start:
            yield b"\n"
