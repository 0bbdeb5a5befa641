"""Files that are read up to a limit, and written completely or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .errors import SigningError


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be written. `mode`: its permissions, less the umask."""

    path: Path
    content: bytes
    mode: int = 0o666


def size_of(path: Path) -> int:
    """The size of a regular file in bytes.

    Raises:
        SigningError: file_unreadable.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not path.is_file():
        raise SigningError("file_unreadable", f"{path} is not a regular file. Name the file itself.")
    return status.st_size


def read(path: Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes.

    Raises:
        SigningError: file_unreadable, or file_too_large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > limit:
        raise SigningError("file_too_large", f"{path} has more than {limit} bytes. Is it the right file?")
    return content


def check_absent(paths: list[Path]) -> None:
    """Refuse early what `create` would refuse.

    Raises:
        SigningError: file_exists.
    """
    for path in paths:
        if os.path.lexists(path):
            raise _exists(path)


def create(files: list[NewFile]) -> None:
    """Write files that must not exist yet: all of them, or none.

    Raises:
        SigningError: file_exists or file_unwritable.
    """
    with ExitStack() as undo:
        for file in files:
            _write_new(file, undo)
        undo.pop_all()


def replace(files: list[NewFile], *, remove: Path | None = None) -> None:
    """Write files, replacing what is there, each atomically and in the given order.

    All contents are on disk before the first file changes.

    Args:
        files: the files to write.
        remove: a file to remove in the same step, before the others change.

    Raises:
        SigningError: file_unwritable.
    """
    with ExitStack() as undo:
        staged = []
        for file in files:
            temporary = file.path.with_name(f".{file.path.name}.{secrets.token_hex(4)}.tmp")
            _write_new(NewFile(temporary, file.content, file.mode), undo)
            staged.append(temporary)
        try:
            if remove is not None:
                remove.unlink(missing_ok=True)
            for temporary, file in zip(staged, files, strict=True):
                temporary.replace(file.path)
        except OSError as error:
            raise _unwritable(Path(error.filename2 or error.filename), error) from error


def _write_new(file: NewFile, undo: ExitStack) -> None:
    """Create a file; `undo` removes it, even after Ctrl-C halfway."""
    try:
        descriptor = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode)
        undo.callback(file.path.unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(file.content)
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError as error:
        raise _exists(file.path) from error
    except OSError as error:
        raise _unwritable(file.path, error) from error


def _exists(path: Path) -> SigningError:
    return SigningError(
        "file_exists", f"{path} already exists and is never overwritten. Name another file, or move it away."
    )


def _unreadable(path: Path, error: OSError) -> SigningError:
    return SigningError("file_unreadable", f"{path} cannot be read: {error.strerror}.")


def _unwritable(path: Path, error: OSError) -> SigningError:
    return SigningError("file_unwritable", f"{path} cannot be written: {error.strerror}. Nothing was changed.")
