"""Everything that a local cloud logged, and the secrets that it must not have logged."""

from __future__ import annotations

from collections.abc import Iterator

from local_cloud import LocalCloud

from .drops import key
from .secrets import lines_of_key


def all_logs(cloud: LocalCloud) -> Iterator[tuple[str, str]]:
    """Names and texts: the servers' files, and CloudWatch's log groups."""
    for path in sorted((cloud.state / "logs").iterdir()):
        yield path.name, path.read_text(errors="replace")
    logs = cloud.client("logs")
    for groups in logs.get_paginator("describe_log_groups").paginate():
        for group in groups["logGroups"]:
            name = group["logGroupName"]
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=name)
            yield name, "\n".join(event["message"] for page in pages for event in page["events"])


def secrets_of(cloud: LocalCloud) -> dict[str, str]:
    """Names and values: passwords, API keys, and every line of every private key."""
    secrets = {"database password": cloud.database.password, "root's secret": cloud.emulator.secret_access_key}
    secrets |= {f"password of {user}": word for user, word in cloud.console_passwords.items()}
    keys = cloud.client("apigateway").get_api_keys(includeValues=True)["items"]
    secrets |= {f"API key {item['name']}": item["value"] for item in keys}
    private_keys = {path.name: path.read_text() for path in cloud.state.rglob("*.key")}
    private_keys |= {"signing key": cloud.signing_key.read_text(), "release key": key().private_pem}
    for name, pem in private_keys.items():
        secrets |= {f"{name}, line {number}": line for number, line in enumerate(lines_of_key(pem), 1)}
    return secrets
