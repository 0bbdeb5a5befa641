"""How every row of the table is measured and reported."""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RUNS = 7


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table.

    Attributes:
        row: which benchmark.
        what: what was measured, with its unit.
        ours, floor: in that unit; medians.
        ratio: the cost of ours divided by the floor's; the median of the runs' ratios.
        goal: in words.
        is_met: whether the goal is met; None without a goal.
        peer: what others achieve.
        more: for readers of the JSON.
    """

    row: str
    what: str
    ours: float
    floor: float | None = None
    ratio: float | None = None
    goal: str = ""
    is_met: bool | None = None
    peer: str = ""
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Medians:
    """Cost of ours and of the floor per operation, in seconds, and ours ÷ floor."""

    ours: float
    floor: float
    ratio: float


def medians(
    ours: Callable[[], object],
    floor: Callable[[], object],
    *,
    operations: int = 1,
    runs: int = RUNS,
    clock: Callable[[], float] = time.process_time,
    before: Callable[[], object] = lambda: None,
    warms_up: bool = True,
) -> Medians:
    """Take turns, so that both see the same machine: what disturbs one run disturbs its pair, and the ratio holds.

    `before` prepares a run of ours and is not measured. Nor is the first pair, which warms both up, unless `warms_up`
    is False.
    """
    if warms_up:
        ours()
        floor()
    pairs = []
    for _ in range(runs):
        before()
        pairs.append((_time(ours, clock) / operations, _time(floor, clock) / operations))
    return Medians(
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[0] / pair[1] for pair in pairs),
    )


def median_cost(
    work: Callable[[], object], *, operations: int = 1, runs: int = 3, clock: Callable[[], float] = time.process_time
) -> float:
    """Seconds per operation."""
    return statistics.median(_time(work, clock) for _ in range(runs)) / operations


def _time(work: Callable[[], object], clock: Callable[[], float]) -> float:
    gc.collect()
    begun = clock()
    work()
    return clock() - begun


def report(*figures: Figure) -> None:
    """Write the figures to the file that run.py names, or print them as a table."""
    document = [asdict(figure) for figure in figures]
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(document, indent=2))
    else:
        print(table(figures))


def table(figures: list[Figure] | tuple[Figure, ...]) -> str:
    """The figures in Markdown."""
    lines = [
        "| what | measured | ours | floor | ratio | goal | met | peer |",
        "| --- | --- | ---: | ---: | ---: | --- | --- | --- |",
    ]
    for figure in figures:
        cells = [
            figure.row,
            figure.what,
            number(figure.ours),
            "" if figure.floor is None else number(figure.floor),
            "" if figure.ratio is None else f"{figure.ratio:.2f} ×",
            figure.goal,
            {None: "", True: "yes", False: "**no**"}[figure.is_met],
            figure.peer,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
