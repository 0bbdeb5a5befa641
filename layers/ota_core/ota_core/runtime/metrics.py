"""The functions' metrics, in CloudWatch's embedded metric format: documents that CloudWatch finds in the log.

AWS charges for each combination of dimension values. So a value never comes from a device or an unverified file, only
from a set that is closed or grows with signed releases alone: products, and this project's own codes.
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
# `reason`: a RejectionCode. By reason only, because the product of a rejected drop may not exist.
DROPS_REJECTED = Metric("DropsRejected", MetricUnit.Count, ((), ("reason",)))
# From the start of an execution until its release's first devices were told. Not for scheduled releases.
TIME_TO_DEVICES = Metric("TimeToDevices", MetricUnit.Seconds, ((), ("product",)))
STATUSES_RECEIVED = Metric("StatusesReceived", MetricUnit.Count, ((),))
STATUSES_DROPPED = Metric("StatusesDropped", MetricUnit.Count, ((),))
# What devices said about a release for the first time; `state`: a DeviceState.
DEVICE_STATES = Metric("DeviceStates", MetricUnit.Count, (("state",), ("product", "state")))
# The failures among those. `reason`: one that this project's devices give, or "other".
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
