"""The one error of the local cloud."""

from pathlib import Path

_LOG_LINES = 15


class LocalCloudError(Exception):
    """Something that needs a person: what was seen, and what to do next."""

    def __init__(self, seen: str, next_step: str, log: Path | None = None) -> None:
        message = f"{seen}\n{next_step}"
        if log is not None and log.exists():
            tail = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
            message += f"\nThe last lines of {log}:\n" + "\n".join(f"    {line}" for line in tail)
        super().__init__(message)
