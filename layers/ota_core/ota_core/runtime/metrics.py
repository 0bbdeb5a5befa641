"""The functions' metrics, in CloudWatch's embedded metric format: documents that CloudWatch finds in the log.

Each combination of dimensions' values is a metric that is paid for. So a value is never what a device or an unverified
file says, but one of a set that is closed or grows with signed releases only: products, and this project's own codes.
"""

from __future__ import annotations

from dataclasses import dataclass

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric; it is recorded once for each set of dimensions, the empty set being the sum over everything."""

    name: str
    unit: MetricUnit
    dimension_sets: tuple[tuple[str, ...], ...]


# `outcome`: registered, published, aborted (by its own criteria) or withdrawn (by an operator).
RELEASES = Metric("Releases", MetricUnit.Count, (("outcome",), ("product", "outcome")))
# `reason`: a RejectionCode. By reason only, since the product of a drop that was rejected need not exist.
DROPS_REJECTED = Metric("DropsRejected", MetricUnit.Count, ((), ("reason",)))
# From the start of an execution until its release's first devices were told. Not of releases that wait for their time.
TIME_TO_DEVICES = Metric("TimeToDevices", MetricUnit.Seconds, ((), ("product",)))
STATUSES_RECEIVED = Metric("StatusesReceived", MetricUnit.Count, ((),))
STATUSES_DROPPED = Metric("StatusesDropped", MetricUnit.Count, ((),))
# What devices said of a release for the first time; `state`: a DeviceState.
DEVICE_STATES = Metric("DeviceStates", MetricUnit.Count, (("state",), ("product", "state")))
# Of those, the failures. `reason`: one that this project's devices give, or "other".
DEVICE_FAILURES = Metric("DeviceFailures", MetricUnit.Count, (("reason",),))


def emit(metric: Metric, value: float, **dimensions: str) -> None:
    """Record a value of a metric. `dimensions` has a value for each name in the metric's dimension sets."""
    # Without the dimension `service`, which all would share.
    document = AmazonCloudWatchEMFProvider(service="")
    document.add_metric(metric.name, metric.unit, value)
    first, *others = metric.dimension_sets
    for name in first:
        document.add_dimension(name, dimensions[name])
    for names in others:
        document.add_dimensions(**{name: dimensions[name] for name in names})
    document.flush_metrics()
