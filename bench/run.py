"""Runs the benchmarks and prints their table: python bench/run.py [ROW …]. See docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import local_cloud
from harness import Figure, table
from lab import PROJECT, STATE, environment

ROWS = (
    "way",
    "cold_start",
    "validate",
    "register",
    "resolve",
    "publish",
    "deliver",
    "check_in",
    "status",
    "device",
    "peer",
)
_OUTPUT = PROJECT / "build" / "bench"


def main(wanted: list[str]) -> int:
    unknown = [row for row in wanted if row not in ROWS]
    if unknown:
        sys.exit(f"bench: there is no row {', '.join(unknown)}; expected one of {', '.join(ROWS)}")
    _OUTPUT.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    broken = []
    try:
        variables = environment(local_cloud.start(STATE, lambda text: print(f"bench: {text}", flush=True)))
        for row in wanted or ROWS:
            print(f"bench: {row}", flush=True)
            found = _run(row, variables)
            if found is None:
                broken.append(row)
            else:
                figures += found
    finally:
        local_cloud.stop(STATE)
    subprocess.run(
        [PROJECT / ".venv-bench" / "bin" / "python", Path(__file__).with_name("plot.py"), _OUTPUT], check=True
    )
    print(f"\n{_machine()}\n\n{table(figures)}")
    if broken:
        print(f"\nNot measured, because the benchmark failed: {', '.join(broken)}")
    return bool(broken)


def _run(row: str, variables: dict[str, str]) -> list[Figure] | None:
    """Run a row as its own program, so that none sees another's memory, imports or environment."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "figures.json"
        program = Path(__file__).with_name(f"{row}.py")
        # The functions' logs are dropped: shipping them is Lambda's work, not theirs.
        ended = subprocess.run(
            [sys.executable, program, output], env=os.environ | variables, stdout=subprocess.DEVNULL, check=False
        )
        if ended.returncode or not output.exists():
            return None
        found = json.loads(output.read_text())
    document = {"machine": _machine(), "figures": found}
    (_OUTPUT / f"{row}.json").write_text(json.dumps(document, indent=2) + "\n")
    return [Figure(**figure) for figure in found]


def _machine() -> str:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    when = f"{datetime.now(UTC):%Y-%m-%d}"
    return f"{when}, {os.cpu_count()} × {model}, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
