"""Run every suite in its long form and print one table of what the project withstood.

A suite reports each row with `report`, which writes it to its own file under build/proof/:

- Python tests ask for the fixture `proof` (tests/conftest.py) and call `proof("cuts", "the pipeline's calls", tried=n,
  withstood=m)`. It records nothing unless pytest runs with `--prove`. The fixture `proving` says whether it does, for
  suites that have a long form.
- The firmware's host tests include `proof.hpp`, whose `report_proof` records if OTA_PROOF_DIR is set.
- Programs that are not tests call `prove.report`.

Each suite counts what was withstood; nothing is assumed: a suite that does not reach its `report` leaves no row. The
proof fails if a suite fails, if a row withstood less than was tried, or if a heading has no row.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
ROWS = PROJECT / "build" / "proof"
# The values of a row's `kind`, and their headings.
KINDS = {
    "attacks": "attacks tried and stopped",
    "inputs": "inputs fuzzed",
    "cuts": "cuts swept",
    "outages": "outages survived",
    "objects": "objects accounted for",
}
SUITES = [
    ["make", "lint"],
    ["make", "test-firmware"],
    ["pytest", "--prove"],
]
# Runs beside the others, on its own core: they mostly wait for the local cloud. CI=true: no parser may be skipped.
FUZZING = ["make", "fuzz", "SECONDS=600", "INPUTS=1000000", "JOBS=1", "CI=true"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        kind: a key of `KINDS`.
        what: which attack, parser, sweep, outage or objects, in words.
        tried: how many there were.
        withstood: how many of them went as they should.
    """

    kind: str
    what: str
    tried: int
    withstood: int


def report(kind: str, what: str, *, tried: int, withstood: int) -> None:
    """Record a row; one with the same `kind` and `what` is replaced."""
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not one of {', '.join(KINDS)}")
    ROWS.mkdir(parents=True, exist_ok=True)  # Not everything that reports runs under `main`.
    name = f"{kind}-{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"
    (ROWS / name).write_text(json.dumps(asdict(Row(kind, what, tried, withstood))))


def collect() -> list[Row]:
    """Every row that was recorded, in the order of the headings."""
    rows = [Row(**json.loads(path.read_text())) for path in ROWS.glob("*.json")]
    return sorted(rows, key=lambda row: (list(KINDS).index(row.kind), row.what))


def shortcomings(rows: list[Row], failed_suites: list[str]) -> list[str]:
    """Why the rows are not a proof."""
    reported = {row.kind for row in rows}
    return [
        *(f"`{suite}` failed" for suite in failed_suites),
        *(
            f"{row.what}: {row.withstood} of {row.tried} withstood"
            for row in rows
            if not 0 < row.tried == row.withstood
        ),
        *(f"nothing was reported for {heading}" for kind, heading in KINDS.items() if kind not in reported),
    ]


def table(rows: list[Row]) -> str:
    """The rows under their headings, each with a sum."""
    lines = []
    for kind, heading in KINDS.items():
        listed = [row for row in rows if row.kind == kind]
        lines += ["", f"{sum(row.withstood for row in listed):>12,}  {heading}"]
        lines += [f"{row.withstood:>12,}    of {row.tried:,} {row.what}" for row in listed]
    return "\n".join(lines)


def require_container_engine() -> None:
    """Exit at once, not after hours, if there is no container engine to run `sam local invoke`."""
    import docker  # noqa: PLC0415 - takes a second, and every suite imports this module without needing it

    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        sys.exit(
            f"prove: no container engine answers, and `sam local invoke` needs one: {error}\n"
            "Start Docker, or set DOCKER_HOST to another engine's socket."
        )


def main() -> int:
    """Run the suites one after the other, even if one fails."""
    shutil.rmtree(ROWS, ignore_errors=True)
    ROWS.mkdir(parents=True)  # The firmware's tests write into it, and do not create it.
    begun = datetime.now(UTC)
    environment = os.environ | {"OTA_PROOF_DIR": str(ROWS)}
    failed = []

    def run(suite: list[str]) -> None:
        print(f"prove: {' '.join(suite)}", flush=True)
        if subprocess.run(suite, cwd=PROJECT, env=environment, check=False).returncode:
            failed.append(" ".join(suite))

    with ThreadPoolExecutor(1) as beside:
        fuzzed = beside.submit(run, FUZZING)
        for suite in SUITES:
            run(suite)
        fuzzed.result()
    rows = collect()
    reasons = shortcomings(rows, failed)
    proof = {
        "begun_at": begun.isoformat(timespec="seconds"),
        "minutes": round((datetime.now(UTC) - begun).total_seconds() / 60, 1),
        "machine": f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}",
        "rows": [asdict(row) for row in rows],
        "shortcomings": reasons,
    }
    (PROJECT / "build").mkdir(exist_ok=True)
    (PROJECT / "build" / "proof.json").write_text(json.dumps(proof, indent=2) + "\n")
    print(table(rows))
    print(f"\n{proof['machine']}; {proof['minutes']} minutes; build/proof.json")
    for reason in reasons:
        print(f"not proven: {reason}")
    return 1 if reasons else 0


if __name__ == "__main__":
    require_container_engine()
    sys.exit(main())
