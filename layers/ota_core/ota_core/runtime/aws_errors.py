"""Errors of calls to AWS, as the SDK raises them."""

from __future__ import annotations

from botocore.exceptions import BotoCoreError, ClientError


def is_aws_error(error: Exception) -> bool:
    """Whether an AWS service refused a call or was unreachable."""
    return isinstance(error, (BotoCoreError, ClientError))
