"""What benchmarks work with: the local cloud, through its environment, and the functions' handlers."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import os
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import local_cloud
import pg8000.native
import psutil
from local_cloud.stack import STACK_NAME

PROJECT = Path(__file__).resolve().parents[1]
STATE = PROJECT / ".local-bench"
IMAGE_BYTES = 1_966_080  # what an OTA slot holds, 1.9 MB
FLEETS = (1_000, 100_000, 1_000_000)
# Every benchmark has its own, so that none finds what another left.
PRODUCT = f"bench-{os.getpid()}"
CONTEXT = SimpleNamespace(
    function_name="f", memory_limit_in_mb=512, invoked_function_arn="arn:f", aws_request_id="r", log_stream_name="s"
)
_numbers = itertools.count(1)


def environment(cloud: local_cloud.LocalCloud) -> dict[str, str]:
    """The variables of every function of the stack, and where the local cloud is."""
    secret = cloud.client("secretsmanager").describe_secret(SecretId="ota/database")
    operate_releases = cloud.client("cloudformation").describe_stack_resource(
        StackName=STACK_NAME, LogicalResourceId="OperateReleasesFunction"
    )["StackResourceDetail"]["PhysicalResourceId"]
    return cloud.environment | {
        "DATABASE_HOST": cloud.database.host,
        "DATABASE_PORT": str(cloud.database.port),
        "DATABASE_NAME": cloud.database.name,
        "DATABASE_SECRET_ARN": secret["ARN"],
        "DATABASE_CA_PEM": cloud.database.ca_file.read_text(),
        "BUCKET": cloud.bucket,
        "DOWNLOAD_MODE": "proxy",
        "IMAGE_CACHE_BYTES": "33554432",
        "TOPIC_PREFIX": "/firmware_update",
        "API_URL": "https://api.example/v1",
        "TRUSTED_KEYS_PREFIX": "/ota/trusted-keys",
        "SLOT_BYTES": str(IMAGE_BYTES),
        "DROP_GRACE_PERIOD": "10",
        "ALERTS_TOPIC_ARN": cloud.outputs["AlertsTopicArn"],
        "EVENT_SOURCE": cloud.outputs["EventSource"],
        "PUBLISH_RATE_PER_SECOND": "20000",
        "PUBLISH_CONCURRENCY": "20",
        "POWERTOOLS_SERVICE_NAME": "esp32-ota",
        "POWERTOOLS_METRICS_NAMESPACE": "esp32-ota/ota",
        "POWERTOOLS_TRACE_DISABLED": "1",
        "OPERATE_RELEASES_FUNCTION": operate_releases,
        "STATE_MACHINE_ARN": cloud.outputs["StateMachineArn"],
        "API_SECRET": "example",
        "BENCH_BUILD": str(STATE / "sam" / "build"),
    }


def load_handler(function: str) -> ModuleType:
    """A function's module in this process, as Lambda imports it."""
    file = PROJECT / "functions" / function / "handler.py"
    spec = importlib.util.spec_from_file_location(f"{function}_handler", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def connect_database() -> pg8000.native.Connection:
    """A connection like the functions' own, over TLS, but it prepares a statement each time."""
    credentials = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["DATABASE_SECRET_ARN"])
    login = json.loads(credentials["SecretString"])
    return pg8000.native.Connection(
        login["username"],
        host=os.environ["DATABASE_HOST"],
        port=int(os.environ["DATABASE_PORT"]),
        database=os.environ["DATABASE_NAME"],
        password=login["password"],
        ssl_context=ssl.create_default_context(cadata=os.environ["DATABASE_CA_PEM"]),
    )


def insert_release(database: pg8000.native.Connection, **changes: Any) -> dict[str, Any]:
    """A published release, as the pipeline would have left it."""
    number = f"{os.getpid()}{next(_numbers):06}"
    fields = {
        "release_id": hashlib.sha256(f"release {number}".encode()).hexdigest()[:32],
        "manifest_sha256": f"m{number}",
        "product": PRODUCT,
        "version": f"1.0.{number}",
        "sequence": int(number),
        "chip": "esp32",
        "changelog": "",
        "envelope": "{}",
        "keyid": "k",
        "image_key": f"releases/{number}.bin",
        "image_version_id": "v",
        "image_size": IMAGE_BYTES,
        "image_sha256": "ab",
        "image_signature": "",
        "target_count": None,
        "allow_downgrade": False,
        "warnings": "[]",
        "execution_arn": "e",
        "state": "published",
        "cohort_percent": 100.0,
        "expires_at": datetime.now(UTC) + timedelta(days=30),
    } | changes
    database.run("INSERT INTO products (product) VALUES (:product) ON CONFLICT DO NOTHING", product=fields["product"])
    columns, values = ", ".join(fields), ", ".join(f":{name}" for name in fields)
    [(row,)] = database.run(
        f"INSERT INTO releases ({columns}) VALUES ({values}) RETURNING id",  # noqa: S608 - the names are ours
        **fields,
    )
    return fields | {"id": row}


def insert_image(database: pg8000.native.Connection, content: bytes, **changes: Any) -> dict[str, Any]:
    """A published release whose image is in the bucket."""
    digest = hashlib.sha256(content).hexdigest()
    key = f"releases/{digest}.bin"
    stored = boto3.client("s3").put_object(Bucket=os.environ["BUCKET"], Key=key, Body=content)
    return insert_release(
        database,
        image_key=key,
        image_version_id=stored["VersionId"],
        image_size=len(content),
        image_sha256=digest,
        **changes,
    )


# Locally administered addresses, in order.
MAC_OF_N = "CAST(lpad(to_hex(x'020000000000'::bigint + n), 12, '0') AS macaddr)"


def mac_of(number: int) -> str:
    """The MAC that MAC_OF_N computes for a number."""
    digits = f"{0x020000000000 + number:012X}"
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def fill_with_devices(database: pg8000.native.Connection, count: int, *tables: str) -> dict[str, Any]:
    """Fill in devices seen an hour ago, each with a row in these tables for a new release. Returns the release."""
    everything = "devices, release_targets, device_states, device_history"
    database.run(f"TRUNCATE {everything}")
    release = insert_release(database, target_count=count)
    numbers = f"FROM generate_series(0, {count - 1}) AS n"
    database.run(
        "INSERT INTO devices (mac, product, running_version, last_seen_at)"
        f" SELECT {MAC_OF_N}, :product, '1.0.0', now() - interval '1 hour' {numbers}",
        product=PRODUCT,
    )
    for table in tables:
        columns, values = ("", "") if table == "release_targets" else (", state", ", 'installed'")
        database.run(
            f"INSERT INTO {table} (release, mac{columns}) SELECT :release, {MAC_OF_N}{values} {numbers}",
            release=release["id"],
        )
    database.run(f"VACUUM ANALYZE {everything}")
    return release


def server_cpu_seconds(database: pg8000.native.Connection) -> float:
    """CPU that PostgreSQL has spent so far on the functions' current connections."""
    found = database.run("SELECT pid FROM pg_stat_activity WHERE application_name = 'esp32-ota'")
    times = [psutil.Process(pid).cpu_times() for (pid,) in found]
    return sum(time.user + time.system for time in times)


def read_event(function: str, case: str) -> Any:
    return json.loads((PROJECT / "events" / function / f"{case}.json").read_text())
