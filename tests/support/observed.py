"""What a function writes to its log, read as CloudWatch reads it: metrics, and lines for people and queries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html, those that are used here
_UNITS = {"Count", "Seconds", "Bytes"}


@dataclass(frozen=True)
class Point:
    """A value of one metric: of a name and one combination of dimensions."""

    name: str
    dimensions: dict[str, str]
    value: float
    unit: str
    namespace: str


def read_log(text: str) -> tuple[list[Point], list[dict[str, Any]]]:
    """The metrics in a log, and its other JSON lines."""
    documents = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    points = [point for document in documents if "_aws" in document for point in read_document(document)]
    return points, [document for document in documents if "_aws" not in document]


def read_document(document: dict[str, Any]) -> list[Point]:
    """The metrics of a document in the embedded metric format.

    Asserts what the specification asks for:
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    assert len(json.dumps(document)) <= 256 * 1024
    metadata = document["_aws"]
    assert set(metadata) == {"Timestamp", "CloudWatchMetrics"}
    assert type(metadata["Timestamp"]) is int
    assert metadata["Timestamp"] > 1_700_000_000_000, "milliseconds since 1970"
    points = []
    for directive in metadata["CloudWatchMetrics"]:
        assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
        namespace = directive["Namespace"]
        assert isinstance(namespace, str)
        assert 0 < len(namespace) <= 1024
        assert directive["Dimensions"], "without a dimension set there is no metric"
        assert 0 < len(directive["Metrics"]) <= 100
        for names in directive["Dimensions"]:
            assert len(names) <= 30
            dimensions = {name: document[name] for name in names}
            for name, value in dimensions.items():
                assert 0 < len(name) <= 250
                assert isinstance(value, str)
                assert 0 < len(value) <= 1024
            for metric in directive["Metrics"]:
                assert set(metric) == {"Name", "Unit"}
                assert metric["Unit"] in _UNITS
                values = document[metric["Name"]]
                assert isinstance(values, list)
                assert 0 < len(values) <= 100
                assert all(type(value) in {int, float} for value in values)
                points.append(Point(metric["Name"], dimensions, sum(values), metric["Unit"], namespace))
    return points
