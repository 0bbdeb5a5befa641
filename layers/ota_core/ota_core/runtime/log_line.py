"""One log line for each request or status, at a tenth of Logger's cost."""

from __future__ import annotations

import json

_MAX_WHY_CHARS = 500


def write_line(message: str, **fields: str | int | None) -> None:
    """Write a JSON object to standard output, which is the log, in Logger's format. `level` is INFO unless given."""
    print(json.dumps({"level": "INFO", "message": message, **fields}))  # noqa: T201


def log_database_failure(error: Exception) -> None:
    """Write the line that the database's alarm and the dashboard count."""
    write_line("database failed", level="WARNING", error=type(error).__name__, why=str(error)[:_MAX_WHY_CHARS])
