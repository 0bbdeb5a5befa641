"""What one release costs, and how long it takes, by the size of the fleet: python bench/scale.py.

Every device is listed by its MAC, the most expensive case: a release for a whole fleet is two messages to AWS IoT
Core. The milliseconds come from the benchmarks (build/bench/*.json) on this machine; the prices are in prices.toml.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PRICES = tomllib.loads(Path(__file__).with_name("prices.toml").read_text())
FLEETS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
CHUNKS = (16, 64, 256)  # KiB
_IMAGE_BYTES = 1024 * 1024
_MESSAGES_PER_BATCH = 1000
_TRANSITIONS_PER_BATCH = 2  # a child execution's start and its task
_TRANSITIONS = 20
_STATUSES = 4  # per device: downloading, verifying, rebooting, installed
_STATUSES_PER_BATCH = 100
_NOTIFICATION_UNITS = 1  # of 5 KB
# Milliseconds that a function waits for others, besides its CPU: PostgreSQL, S3, AWS IoT Core.
_WAITS_MS = {"check_in": 5.0, "deliver": 0.0, "status_batch": 50.0}
# Memory in GB, from the template. Publishing is bound by the rate, so it takes messages ÷ rate.
_MEMORY = {"publish": 1.0, "deliver": 0.5, "check_in": 0.5, "status": 0.5}
# Default quotas in a large region: IoT publishes per second, API Gateway requests per second, Lambda concurrency.
QUOTAS = {"iot_publishes": 20_000, "api_requests": 10_000, "lambda_concurrency": 1_000}
JOBS_PER_MINUTE = 1_000  # devices that AWS IoT Jobs rolls out to


@dataclass(frozen=True)
class Figures:
    """CPU per operation in milliseconds, as the benchmarks measured it."""

    deliver: float
    check_in: float
    status: float


def read_figures() -> Figures:
    def ours(row: str, what: str) -> float:
        """The last figure: the one for the largest fleet, if there are several."""
        figures = json.loads((PROJECT / "build" / "bench" / f"{row}.json").read_text())["figures"]
        return [figure["ours"] for figure in figures if figure["what"].startswith(what)][-1]

    return Figures(
        deliver=ours("deliver", "ms of CPU"),
        check_in=1000 / ours("check_in", "check-ins per CPU-second"),
        status=1000 / ours("status", "statuses recorded per CPU-second"),
    )


def cost(devices: int, chunk_kib: int | None, figures: Figures) -> dict[str, float]:
    """What a release costs in dollars, by service; if `chunk_kib` is None, devices download from presigned URLs."""
    chunks = 1 if chunk_kib is None else math.ceil(_IMAGE_BYTES / (chunk_kib * 1024))
    batches = math.ceil(devices / _MESSAGES_PER_BATCH)
    status_batches = math.ceil(devices * _STATUSES / _STATUSES_PER_BATCH)
    iot, api, functions = PRICES["iot_core"], PRICES["api_gateway"], PRICES["lambda"]
    # base64 costs in proportion to the chunk; a redirect costs as much as the smallest chunk.
    deliver_ms = figures.deliver * (chunk_kib or 16) / 64 + _WAITS_MS["deliver"]
    seconds = {
        # Twenty concurrent batches share the quota.
        "publish": devices * 20 / QUOTAS["iot_publishes"],
        "deliver": devices * chunks * max(1.0, deliver_ms) / 1000,
        "check_in": devices * (figures.check_in + _WAITS_MS["check_in"]) / 1000,
        "status": (devices * _STATUSES * figures.status + status_batches * _WAITS_MS["status_batch"]) / 1000,
    }
    requests = batches + devices * chunks + devices + status_batches
    return {
        # In, out, the device's PUBACK, which is metered too, and its statuses.
        "IoT Core, messages": devices * (3 * _NOTIFICATION_UNITS + _STATUSES) * iot["message"],
        "IoT Core, rule": devices * _STATUSES * (iot["rule"] + iot["action"]),
        "API Gateway": devices * (chunks + 1) * api["request"],
        "Lambda": requests * functions["request"]
        + sum(seconds[name] * _MEMORY[name] for name in seconds) * functions["gb_second"],
        "SQS": (devices * _STATUSES + 2 * status_batches) * PRICES["sqs"]["request"],
        "Step Functions": (_TRANSITIONS + batches * _TRANSITIONS_PER_BATCH) * PRICES["step_functions"]["transition"],
        "S3": batches * 2 * PRICES["s3"]["put"]
        + (batches * 2 + (devices if chunk_kib is None else 0)) * PRICES["s3"]["get"],
        "Data transfer": devices * _IMAGE_BYTES / 1e9 * PRICES["data_transfer"]["gb"],
    }


def jobs_cost(devices: int) -> float:
    """AWS IoT Jobs for the same release: its executions, and the same bytes from presigned URLs."""
    jobs = PRICES["iot_jobs"]
    further = max(0, devices - jobs["first_executions"])
    transfer = devices * (_IMAGE_BYTES / 1e9 * PRICES["data_transfer"]["gb"] + PRICES["s3"]["get"])
    return (devices - further) * jobs["execution"] + further * jobs["further_execution"] + transfer


def main() -> None:
    figures = read_figures()
    print(f"Prices of {PRICES['as_of']}, us-east-1, without free tiers:\n")
    columns = [*(f"{chunk} KiB chunks" for chunk in CHUNKS), "presigned URLs", "AWS IoT Jobs"]
    print("| devices | " + " | ".join(columns) + " | notified in | by Jobs in |")
    print("| ---: |" + " ---: |" * (len(columns) + 2))
    series: dict[str, list[float]] = {column: [] for column in columns}
    for devices in FLEETS:
        totals = [sum(cost(devices, chunk, figures).values()) for chunk in (*CHUNKS, None)] + [jobs_cost(devices)]
        for column, total in zip(columns, totals, strict=True):
            series[column].append(total)
        notified = duration(devices / QUOTAS["iot_publishes"])
        jobs = duration(devices / JOBS_PER_MINUTE * 60)
        print(f"| {devices:,} | " + " | ".join(f"${total:,.2f}" for total in totals) + f" | {notified} | {jobs} |")
    print("\nFor one million devices and chunks of 64 KiB:\n\n| service | dollars |\n| --- | ---: |")
    for service, dollars in cost(1_000_000, 64, figures).items():
        print(f"| {service} | {dollars:,.2f} |")
    output = PROJECT / "build" / "bench"
    (output / "scale.json").write_text(json.dumps({"fleets": FLEETS, "series": series}, indent=2) + "\n")
    plot = Path(__file__).with_name("plot.py")
    subprocess.run([PROJECT / ".venv-bench" / "bin" / "python", plot, output], check=True)
    print(f"\nPlotted: {output / 'scale.png'}")


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.0f} h"


if __name__ == "__main__":
    sys.exit(main())
